//! Query parameters, read strictly, and the cursors of lists.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::clock;
use serde::Serialize;

use crate::error::{ApiError, Fault};

/// How many items a page has, unless the client says.
const USUAL: i64 = 50;
/// How many it can have.
const MOST: i64 = 200;

/// The parameters of a query that is being read.
pub(crate) struct Parameters {
    left: Vec<(String, String)>,
    asked: Vec<&'static str>,
    faults: Vec<Fault>,
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(left) = query.map_err(|rejection| ApiError::malformed(rejection.body_text()))?;
        Ok(Self { left, asked: Vec::new(), faults: Vec::new() })
    }
}

impl Parameters {
    /// All values of a parameter, in order.
    pub(crate) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.asked.push(name);
        let mut values = Vec::new();
        self.left.retain(|(key, value)| {
            let is_it = key == name;
            if is_it {
                values.push(value.clone());
            }
            !is_it
        });
        if values.iter().any(|value| value.contains('\0')) {
            self.fault(name, "has a character U+0000");
            return Vec::new();
        }
        values
    }

    /// The value of a parameter that is given once.
    pub(crate) fn one(&mut self, name: &'static str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault(name, "is given more than once");
        }
        values.pop()
    }

    /// A parameter that `read` understands.
    pub(crate) fn parsed<T, E: Display>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.one(name)?;
        read(&text).map_err(|error| self.fault(name, format!("{error}"))).ok()
    }

    /// A number.
    pub(crate) fn number<T: FromStr>(&mut self, name: &'static str) -> Option<T> {
        self.parsed(name, |text| {
            text.parse().map_err(|_| format!("{text:?} is not a number that is possible here"))
        })
    }

    /// An instant in RFC 3339.
    pub(crate) fn instant(&mut self, name: &'static str) -> Option<clock::Instant> {
        self.parsed(name, |text| {
            text.parse()
                .map_err(|_| format!("{text:?} is not an instant such as \"2030-01-31T08:00:00Z\""))
        })
    }

    /// The values of a parameter that may be given more than once, or as a list with commas.
    pub(crate) fn words<T>(&mut self, name: &'static str, known: &[(&str, T)]) -> Vec<T>
    where
        T: Copy,
    {
        let mut words = Vec::new();
        for text in self.all(name) {
            for word in text.split(',') {
                match known.iter().find(|(name, _)| *name == word) {
                    Some((_, value)) => words.push(*value),
                    None => {
                        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                        self.fault(name, format!("{word:?} is none of {}", names.join(", ")));
                    }
                }
            }
        }
        words
    }

    /// Notes that a parameter is wrong.
    pub(crate) fn fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(Fault {
            pointer: None,
            parameter: Some(name.to_owned()),
            detail: detail.into(),
        });
    }

    /// `limit`, or what is usual.
    pub(crate) fn limit(&mut self) -> i64 {
        let limit = self.number("limit").unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            self.fault("limit", format!("must be 1 to {MOST}"));
        }
        limit
    }

    /// Where the page before ended, as `read` understands it.
    pub(crate) fn cursor<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.parsed("cursor", |text| {
            let key = open(text).and_then(|key| read(&key));
            key.ok_or("is not a cursor of this list: take it from `next_cursor`, unchanged")
        })
    }

    /// All that is wrong, what was not asked for included; `read` if nothing is.
    pub(crate) fn finish<T>(mut self, read: T) -> Result<T, ApiError> {
        let known = match self.asked.as_slice() {
            [] => "none is known".to_owned(),
            asked => format!("known are: {}", asked.join(", ")),
        };
        for (name, _) in std::mem::take(&mut self.left) {
            self.fault(&name, format!("is not known here; {known}"));
        }
        if self.faults.is_empty() { Ok(read) } else { Err(ApiError::invalid(self.faults)) }
    }
}

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// What to send as `cursor` for the next page; null when this is the last.
    pub(crate) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page from one item more than it may have, if there are so many.
    pub(crate) fn new<R>(
        mut rows: Vec<R>,
        limit: i64,
        key: impl Fn(&R) -> String,
        item: impl Fn(R) -> T,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(1);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|row| seal(&key(row)));
        Self { items: rows.into_iter().map(item).collect(), next_cursor }
    }
}

/// A key made opaque, so that nobody builds on what is in it.
fn seal(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// The key in a cursor.
fn open(text: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() <= 512)?;
    String::from_utf8(bytes).ok().filter(|key| !key.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_to_what_was_sealed() {
        for key in
            ["", "a", "ab", "abc", "nightly-backup", "0190b2f0-0000-7000-8000-000000000001", "grün"]
        {
            assert_eq!(open(&seal(key)).as_deref(), Some(key));
        }
    }

    #[test]
    fn what_was_not_sealed_here_does_not_open() {
        for text in ["a", "!!!!", "YQ==", "AA", "YR", "é", &"A".repeat(2000)] {
            assert_eq!(open(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_are_read_strictly() {
        let read = |query: &str| {
            let uri = format!("/v1/runs?{query}").parse().expect("a URI");
            let Query(left) = Query::<Vec<(String, String)>>::try_from_uri(&uri).expect("a query");
            let mut parameters = Parameters { left, asked: Vec::new(), faults: Vec::new() };
            let limit = parameters.limit();
            parameters.words("state", &[("failed", 1), ("running", 2)]);
            parameters.instant("created_after");
            parameters.finish(limit).map_err(|error| {
                let errors = error.problem().errors;
                errors.into_iter().filter_map(|fault| fault.parameter).collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(read(""), Ok(USUAL));
        assert_eq!(
            read("limit=7&state=failed,running&state=failed&created_after=2030-01-31T08:00:00Z"),
            Ok(7)
        );
        let wrong = |parameters: &str| Err(parameters.to_owned());
        assert_eq!(
            read("limit=0&state=lost&created_after=now&stat=x"),
            wrong("limit state created_after stat")
        );
        assert_eq!(read("limit=1&limit=2"), wrong("limit"));
        assert_eq!(read("state=%00"), wrong("state"));
    }

    #[test]
    fn a_page_knows_whether_there_is_another() {
        let page = |rows: Vec<i32>| Page::new(rows, 2, |row| row.to_string(), |row| row);
        assert_eq!(page(vec![1, 2]).next_cursor, None);
        let more = page(vec![1, 2, 3]);
        assert_eq!((more.items, more.next_cursor), (vec![1, 2], Some(seal("2"))));
    }
}
