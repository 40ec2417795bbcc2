//! How many in what time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// So many requests in so much time, all at once if need be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) per: Duration,
}

/// A setting: a rate, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateSetting(pub(crate) Option<Rate>);

impl Rate {
    /// How long one request takes to be forgotten.
    pub(crate) fn interval(self) -> Duration {
        self.per / self.burst
    }

    fn unit(self) -> &'static str {
        match self.per.as_secs() {
            1 => "s",
            60 => "min",
            _ => "h",
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.burst, self.unit())
    }
}

impl FromStr for RateSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let wrong =
            || format!("{text:?} is no rate; it wants `600/min`, `50/s`, `1000/h` or `off`");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        let burst = count.parse().ok().filter(|count| (1..=1_000_000).contains(count));
        let burst = burst.ok_or_else(wrong)?;
        Ok(Self(Some(Rate { burst, per: Duration::from_secs(seconds) })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["600/min", "50/s", "1/h", "1000000/s"] {
            let RateSetting(rate) = text.parse().expect("a rate");
            assert_eq!(rate.expect("it is not off").to_string(), text);
        }
        assert_eq!("off".parse(), Ok(RateSetting(None)));
        for wrong in ["", "5", "0/s", "-1/s", "5/m", "5/min/", "1.5/s", "1000001/s", "Off"] {
            assert!(wrong.parse::<RateSetting>().is_err(), "{wrong}");
        }
    }
}
