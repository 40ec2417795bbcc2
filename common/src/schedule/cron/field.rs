//! One field of a cron expression: numbers, names, ranges, steps and lists.

use crate::problem::quoted;

/// What a field may hold.
pub(super) struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names of its values, from `first` on.
    names: &'static [&'static str],
    /// What is added to a number for the crate.
    shift: u32,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

pub(super) const SECOND: Field = Field::of("seconds", 0, 59);
pub(super) const MINUTE: Field = Field::of("minutes", 0, 59);
pub(super) const HOUR: Field = Field::of("hours", 0, 23);
pub(super) const DAY: Field = Field::of("day of month", 1, 31);
pub(super) const MONTH: Field = Field { names: &MONTHS, ..Field::of("month", 1, 12) };
/// 7 is read, and means 0. The crate counts from 1.
pub(super) const WEEKDAY: Field =
    Field { names: &WEEKDAYS, shift: 1, ..Field::of("weekday", 0, 6) };

/// The values that a field names, as the crate counts them.
pub(super) struct Values {
    values: Vec<u32>,
    is_all: bool,
}

impl Values {
    /// Whether it names all that there are.
    pub(super) fn is_all(&self) -> bool {
        self.is_all
    }

    /// As the crate reads it.
    pub(super) fn list(&self) -> String {
        if self.is_all {
            return "*".to_owned();
        }
        let values: Vec<String> = self.values.iter().map(u32::to_string).collect();
        values.join(",")
    }
}

impl Field {
    const fn of(name: &'static str, first: u32, last: u32) -> Self {
        Self { name, first, last, names: &[], shift: 0 }
    }

    /// Reads a list of items.
    pub(super) fn read(&self, text: &str) -> Result<Values, String> {
        self.refuse_foreign(text)?;
        let count = (self.last - self.first + 1) as usize;
        let mut named = vec![false; count];
        for item in text.split(',') {
            self.item(item, &mut named)?;
        }
        let values = (self.first..=self.last).zip(&named).filter(|(_, named)| **named);
        Ok(Values {
            values: values.map(|(value, _)| value + self.shift).collect(),
            is_all: named.iter().all(|named| *named),
        })
    }

    /// What other crons have, and crontab(5) has not.
    fn refuse_foreign(&self, text: &str) -> Result<(), String> {
        let has = |marks: &[&str]| {
            text.split([',', '-', '/']).any(|item| {
                let item = item.to_ascii_lowercase();
                if self.names.contains(&item.as_str()) {
                    return false;
                }
                let bare = item.trim_start_matches(|c: char| c.is_ascii_digit());
                let bare =
                    self.names.iter().find_map(|name| bare.strip_prefix(name)).unwrap_or(bare);
                marks.contains(&bare)
            })
        };
        let instead = if text.contains('?') {
            Some(("?", "write `*` where any day will do"))
        } else if text.contains('#') {
            Some(("#", "a weekday of a certain week cannot be named; name the days, such as 8-14"))
        } else if has(&["l"]) {
            Some((
                "L",
                "the last day cannot be named; run on the days 28-31, and let the run decide",
            ))
        } else if has(&["w", "lw"]) {
            Some(("W", "the nearest working day cannot be named; use 1-5 as weekdays"))
        } else {
            None
        };
        match instead {
            Some((mark, instead)) => Err(format!(
                "`{mark}` in the field {} is not of crontab(5), and is not taken: {instead}",
                self.name
            )),
            None => Ok(()),
        }
    }

    fn item(&self, item: &str, named: &mut [bool]) -> Result<(), String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (item, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last),
            Some((from, to)) => self.range(from, to)?,
            None if step.is_some() => {
                return Err(format!(
                    "a step wants a range in the field {}: `{range}-{}/{}`",
                    self.name,
                    self.last,
                    step.unwrap_or(1)
                ));
            }
            None => {
                let value = self.value(range)?;
                (value, value)
            }
        };
        for value in (from..=to).step_by(step.unwrap_or(1) as usize) {
            // Only a Sunday may be beyond the last: it is the first.
            let value = if value > self.last { self.first } else { value };
            named[(value - self.first) as usize] = true;
        }
        Ok(())
    }

    fn range(&self, from: &str, to: &str) -> Result<(u32, u32), String> {
        let (first, mut last) = (self.value(from)?, self.value(to)?);
        // Saturday to Sunday: the Sunday that comes after.
        if last < first && last == 0 && !self.names.is_empty() && self.first == 0 {
            last = self.last + 1;
        }
        if first > last {
            return Err(format!(
                "the range {} in the field {} runs backwards; write two: `{from}-{},{}-{to}`",
                quoted(&format!("{from}-{to}")),
                self.name,
                self.last,
                self.first
            ));
        }
        Ok((first, last))
    }

    fn step(&self, text: &str) -> Result<u32, String> {
        let most = self.last - self.first + 1;
        let step = number(text).filter(|step| (1..=most).contains(step));
        step.ok_or_else(|| {
            format!(
                "the step {} in the field {} is not a number from 1 to {most}",
                quoted(text),
                self.name
            )
        })
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        if let Some(place) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.first + place as u32);
        }
        // 7 is Sunday, too.
        let last = if self.shift == 1 { self.last + 1 } else { self.last };
        let value = number(text).filter(|value| (self.first..=last).contains(value));
        value.ok_or_else(|| {
            let names = match self.names {
                [first, .., end] => format!(", or a name from {first} to {end}"),
                _ => String::new(),
            };
            format!(
                "{} in the field {} is not a number from {} to {last}{names}",
                quoted(text),
                self.name,
                self.first
            )
        })
    }
}

fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}
