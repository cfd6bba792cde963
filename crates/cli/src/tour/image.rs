//! Pictures to work on: parts of the Mandelbrot set, as binary PPM files (<https://netpbm.sourceforge.net/doc/ppm.html>).

/// Points that have not left the circle after so many steps belong to the set.
const STEPS: u32 = 200;

/// A picture of `width` by `height` pixels around a point that follows from `number`.
pub(super) fn picture(number: u32, width: u32, height: u32) -> Vec<u8> {
    let zoom = 1.5 / f64::from(1 + number);
    let (cx, cy) = (-0.743_643_9, 0.131_825_9);
    let mut out = format!("P6\n{width} {height}\n255\n").into_bytes();
    for y in 0..height {
        for x in 0..width {
            let re = cx + (f64::from(x) / f64::from(width) - 0.5) * 2.0 * zoom;
            let im = cy + (f64::from(y) / f64::from(height) - 0.5) * 2.0 * zoom * f64::from(height) / f64::from(width);
            out.extend(colour(escape(re, im)));
        }
    }
    out
}

/// After how many steps the point leaves; `None` when it does not.
fn escape(re: f64, im: f64) -> Option<u32> {
    let (mut x, mut y) = (0.0_f64, 0.0_f64);
    for step in 0..STEPS {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > 4.0 {
            return Some(step);
        }
        (x, y) = (xx - yy + re, 2.0 * x * y + im);
    }
    None
}

fn colour(steps: Option<u32>) -> [u8; 3] {
    let Some(steps) = steps else { return [0, 0, 0] };
    let wave = |phase: f64| ((f64::from(steps) * 0.15 + phase).sin() * 127.0 + 128.0) as u8;
    [wave(0.0), wave(2.1), wave(4.2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_header_and_all_its_pixels() {
        let ppm = picture(0, 16, 8);
        assert!(ppm.starts_with(b"P6\n16 8\n255\n"));
        assert_eq!(ppm.len(), "P6\n16 8\n255\n".len() + 16 * 8 * 3);
        assert_ne!(ppm, picture(3, 16, 8));
        assert_eq!((escape(0.0, 0.0), escape(2.0, 2.0)), (None, Some(1)));
    }
}
