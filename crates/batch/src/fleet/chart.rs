//! A small chart in text.

use super::Point;

const LEVELS: [char; 9] = [' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];

/// Two lines of `width` characters over the same time: workers and tasks, each the largest of its stretch of time.
pub fn chart(points: &[Point], width: usize) -> String {
    let end = points.last().map_or(0.0, |p| p.at_s).max(1.0);
    let width = width.clamp(10, 400);
    let line = |value: &dyn Fn(&Point) -> f64| {
        let mut columns = vec![0.0_f64; width];
        for pair in points.windows(2) {
            let from = ((pair[0].at_s / end) * width as f64) as usize;
            let until = ((pair[1].at_s / end) * width as f64) as usize;
            for column in columns.iter_mut().take(until.min(width - 1) + 1).skip(from) {
                *column = column.max(value(&pair[0]));
            }
        }
        let top = columns.iter().copied().fold(0.0, f64::max);
        let text: String = columns.iter().map(|v| if top > 0.0 { LEVELS[((v / top) * 8.0).ceil() as usize] } else { ' ' }).collect();
        (text, top)
    };
    let (workers, most_workers) = line(&|p| f64::from(p.workers));
    let (tasks, most_tasks) = line(&|p| p.tasks as f64);
    format!("workers |{workers}| up to {most_workers:.0}\ntasks   |{tasks}| up to {most_tasks:.0}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_looks_like_one() {
        let points: Vec<Point> = (0..=100).map(|i| Point { at_s: f64::from(i), workers: i, tasks: 0 }).collect();
        let text = chart(&points, 10);
        assert_eq!(
            text.lines().next().unwrap(),
            "workers |\u{2581}\u{2582}\u{2583}\u{2584}\u{2584}\u{2585}\u{2586}\u{2587}\u{2588}\u{2588}| up to 99"
        );
        assert!(text.lines().nth(1).unwrap().ends_with("up to 0"));
    }
}
