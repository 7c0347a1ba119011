//! The size of an app's pool: `4`, `2..16` or `auto`.

#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::value;

/// The most workers one app may have: the rows of the scoreboard are set aside for them.
pub const MAX_WORKERS: u32 = 1024;

/// The pool as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pool {
    /// Sized by the machine.
    Auto,
    Range(Workers),
}

/// How many workers there may be, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    pub min: u32,
    pub max: u32,
}

impl Pool {
    /// `auto` is one worker per CPU, up to eight when they wait.
    pub fn resolve(self, cpus: usize) -> Workers {
        match self {
            Pool::Auto => {
                let count = u32::try_from(cpus)
                    .unwrap_or(u32::MAX)
                    .clamp(1, MAX_WORKERS);
                Workers {
                    min: count,
                    max: (count * 8).min(MAX_WORKERS),
                }
            }
            Pool::Range(workers) => workers,
        }
    }
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Pool, String> {
        if text == "auto" {
            return Ok(Pool::Auto);
        }
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let workers = Workers {
            min: count(min, text)?,
            max: count(max, text)?,
        };
        if workers.min > workers.max {
            return Err(format!("{text:?} has its larger number first"));
        }
        Ok(Pool::Range(workers))
    }
}

fn count(text: &str, whole: &str) -> Result<u32, String> {
    let count = value::number(text)
        .map_err(|_| format!("{whole:?} is neither a number of workers, MIN..MAX nor auto"))?;
    match u32::try_from(count) {
        Ok(count @ 1..=MAX_WORKERS) => Ok(count),
        _ => Err(format!("{text:?} is not between 1 and {MAX_WORKERS}")),
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pool::Auto => f.write_str("auto"),
            Pool::Range(Workers { min, max }) if min == max => write!(f, "{min}"),
            Pool::Range(Workers { min, max }) => write!(f, "{min}..{max}"),
        }
    }
}

impl TryFrom<String> for Pool {
    type Error = String;

    fn try_from(text: String) -> Result<Pool, String> {
        text.parse()
    }
}

impl From<Pool> for String {
    fn from(pool: Pool) -> String {
        pool.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_fixed_pool() {
        let pool: Pool = "4".parse().unwrap();
        assert_eq!(pool.resolve(64), Workers { min: 4, max: 4 });
        assert_eq!("4..4".parse(), Ok(pool));
        assert_eq!(pool.to_string(), "4");
    }

    #[test]
    fn auto_is_one_worker_per_cpu_within_the_limits() {
        let pool: Pool = "auto".parse().unwrap();
        assert_eq!(pool.to_string(), "auto");
        for (cpus, min, max) in [
            (0, 1, 8),
            (1, 1, 8),
            (8, 8, 64),
            (4096, MAX_WORKERS, MAX_WORKERS),
        ] {
            let workers = pool.resolve(cpus);
            assert_eq!((workers.min, workers.max), (min, max), "{cpus} CPUs");
        }
    }

    #[test]
    fn an_elastic_pool_has_two_bounds() {
        let pool: Pool = "2..16".parse().unwrap();
        assert_eq!(pool, Pool::Range(Workers { min: 2, max: 16 }));
        assert_eq!(pool.to_string(), "2..16");
    }

    #[test]
    fn rejects_what_is_not_a_pool() {
        for bad in [
            "", "0", "1025", "-1", "x", "Auto", "1.5", "..", "1..", "..2", "3..2", "1..2..3",
            "0..1",
        ] {
            assert!(bad.parse::<Pool>().is_err(), "{bad:?}");
        }
    }
}
