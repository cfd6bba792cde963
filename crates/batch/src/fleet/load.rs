//! A load to try a policy against: recorded, or made up.

use tidemill_base::{Error, Result};

/// Tasks that arrive together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// Seconds after the beginning.
    pub at_s: f64,
    /// How many.
    pub tasks: u64,
    /// Slot time of each, seconds.
    pub task_s: f64,
}

/// Arrivals in order of their time.
#[derive(Debug, Clone, PartialEq)]
pub struct Load(pub Vec<Arrival>);

/// No more arrivals than this in one load.
const MAX_ARRIVALS: usize = 1_000_000;

impl Load {
    /// The made-up loads, by name.
    pub const NAMES: [&str; 4] = ["steady", "burst", "working-day", "month-end"];

    /// A made-up load; `Invalid` for a name not in [`Load::NAMES`].
    pub fn named(name: &str) -> Result<Self> {
        let each = |n: u32, f: &dyn Fn(f64) -> (f64, f64, f64)| {
            Self((0..n).map(|i| f(f64::from(i))).map(|(at_s, tasks, task_s)| Arrival { at_s, tasks: tasks as u64, task_s }).collect())
        };
        Ok(match name {
            // A hundred ten-second tasks a minute for two hours.
            "steady" => each(120, &|i| (i * 60.0, 100.0, 10.0)),
            // Ten thousand at once, out of nothing.
            "burst" => Self(vec![Arrival { at_s: 60.0, tasks: 10_000, task_s: 5.0 }]),
            // Eight hours that rise to noon and fall again, in steps of five minutes.
            "working-day" => each(96, &|i| (i * 300.0, 400.0 * (std::f64::consts::PI * i / 96.0).sin().max(0.0), 8.0)),
            // Thirty days of a nightly run; on the last it is forty times as large and there are corrections after it.
            "month-end" => {
                let mut load = each(30, &|day| (day * 86_400.0 + 79_200.0, 2_000.0, 6.0));
                load.0.push(Arrival { at_s: 29.0 * 86_400.0 + 82_800.0, tasks: 80_000, task_s: 12.0 });
                load.0.push(Arrival { at_s: 30.0 * 86_400.0 + 3_600.0, tasks: 8_000, task_s: 12.0 });
                load
            }
            _ => {
                return Err(Error::invalid(format!(
                    "there is no load `{name}`; choose one of {}, or give a CSV file",
                    Self::NAMES.join(", ")
                )));
            }
        })
    }

    /// Reads `seconds,tasks,seconds_per_task` lines; a first line that is not numbers is a header.
    pub fn from_csv(text: &str) -> Result<Self> {
        let mut out = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let parsed = match fields.as_slice() {
                [at, tasks, each] => at.parse::<f64>().ok().zip(tasks.parse::<u64>().ok()).zip(each.parse::<f64>().ok()),
                _ => None,
            };
            match parsed {
                Some(((at_s, tasks), task_s)) if at_s >= 0.0 && at_s.is_finite() && task_s >= 0.0 && task_s.is_finite() => {
                    out.push(Arrival { at_s, tasks, task_s });
                }
                None if number == 0 => {}
                _ => return Err(Error::invalid(format!("line {}: `{line}` is not `seconds,tasks,seconds_per_task`", number + 1))),
            }
            if out.len() > MAX_ARRIVALS {
                return Err(Error::exhausted(format!("more than {MAX_ARRIVALS} lines; sum up neighbouring arrivals")));
            }
        }
        if out.is_empty() {
            return Err(Error::invalid("the load has no arrivals"));
        }
        out.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        Ok(Self(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_csv_with_a_header_and_names_the_bad_line() {
        let load = Load::from_csv("at,tasks,each\n60, 5, 1.5\n0,1,2\n").unwrap();
        assert_eq!(load.0[0].tasks, 1);
        let e = Load::from_csv("0,1,2\n1,x,3").unwrap_err();
        assert!(e.message().starts_with("line 2: `1,x,3`"), "{e}");
        assert!(Load::from_csv("at,tasks,each").is_err());
        for name in Load::NAMES {
            assert!(!Load::named(name).unwrap().0.is_empty());
        }
    }
}
