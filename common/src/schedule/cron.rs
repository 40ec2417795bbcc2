//! Cron as crontab(5) means it, on top of the `cron` crate.
//!
//! The crate walks the calendar; what it means by an expression differs. So an expression is read here, field by
//! field, and handed on as plain lists of numbers: with seconds, with weekdays counted from 1 = Sunday, and as two
//! schedules where either of both day fields may match.

mod field;

use std::str::FromStr;

use chrono::{NaiveDateTime, TimeDelta, Utc};

use self::field::Field;

/// A cron expression that fires at some time.
#[derive(Debug, Clone)]
pub struct Cron {
    /// One, or two where either of both day fields may match.
    calendars: Vec<cron::Schedule>,
    every_hour: bool,
}

/// What the nicknames stand for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Cron {
    /// Reads five fields, six with the seconds first, or a nickname. The error is one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let expanded = match text.strip_prefix('@') {
            Some(_) => nickname(text)?,
            None => text,
        };
        let texts: Vec<&str> = expanded.split_ascii_whitespace().collect();
        let (second, rest) = match texts.as_slice() {
            rest if rest.len() == 5 => ("0", rest),
            [second, rest @ ..] if rest.len() == 5 => (*second, rest),
            _ => {
                return Err(format!(
                    "a cron expression has 5 fields (minute, hour, day of month, month, weekday), or 6 with the \
                     seconds first; this has {}",
                    texts.len()
                ));
            }
        };
        let read = |field: &Field, text: &str| field.read(text);
        let seconds = read(&field::SECOND, second)?;
        let minutes = read(&field::MINUTE, rest[0])?;
        let hours = read(&field::HOUR, rest[1])?;
        let days = read(&field::DAY, rest[2])?;
        let months = read(&field::MONTH, rest[3])?;
        let weekdays = read(&field::WEEKDAY, rest[4])?;
        let either = !rest[2].starts_with('*') && !rest[4].starts_with('*');
        let time = format!("{} {} {}", seconds.list(), minutes.list(), hours.list());
        let calendar = |days: &str, weekdays: &str| {
            let text = format!("{time} {days} {} {weekdays} *", months.list());
            cron::Schedule::from_str(&text).map_err(|error| format!("it cannot be read: {error}"))
        };
        let calendars = if either {
            vec![calendar(&days.list(), "*")?, calendar("*", &weekdays.list())?]
        } else {
            vec![calendar(&days.list(), &weekdays.list())?]
        };
        let cron = Self { calendars, every_hour: hours.is_all() };
        match cron.next_local(NaiveDateTime::default()) {
            Some(_) => Ok(cron),
            None => Err("it can never fire: no month that it names has such a day".to_owned()),
        }
    }

    /// Whether it names every hour: then it goes on with elapsed time when clocks are changed.
    pub fn is_every_hour(&self) -> bool {
        self.every_hour
    }

    /// The first local time after `after` that matches, on a calendar without gaps. None after the year 2100.
    pub(super) fn next_local(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = after.and_utc();
        let next = |calendar: &cron::Schedule| {
            calendar.after::<Utc>(&after).next().map(|at| at.naive_utc())
        };
        self.calendars.iter().filter_map(next).min()
    }

    /// The first local time from `from` on that matches.
    pub(super) fn next_local_from(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        self.next_local(from.checked_sub_signed(TimeDelta::seconds(1))?)
    }
}

fn nickname(text: &str) -> Result<&'static str, String> {
    let lower = text.to_ascii_lowercase();
    if let Some((_, expanded)) = NICKNAMES.iter().find(|(name, _)| *name == lower) {
        return Ok(expanded);
    }
    let names: Vec<&str> = NICKNAMES.iter().map(|(name, _)| *name).collect();
    Err(match lower.split_ascii_whitespace().next().unwrap_or_default() {
        "@reboot" => "`@reboot` names no time; there is no machine that starts".to_owned(),
        "@every" => "`@every` is an interval: use the kind `interval`".to_owned(),
        _ => format!("there are the nicknames {}", names.join(", ")),
    })
}
