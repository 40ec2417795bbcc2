//! What a client is told when something is wrong: one problem document (RFC 9457) for all of it.

mod kind;

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use common::problem::Pointed;
use common::store;
use serde::Serialize;
use utoipa::ToSchema;

pub(crate) use self::kind::Kind;

/// A problem document.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// A stable name for this kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "urn:gathering:problem:invalid")]
    pub(crate) kind: String,
    /// The kind, for people.
    pub(crate) title: &'static str,
    /// The status of the answer.
    pub(crate) status: u16,
    /// What is wrong this time.
    pub(crate) detail: String,
    /// What is wrong in the body or in the query, all of it at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<Fault>,
    /// The request's id, to be named in a report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Fault {
    /// A JSON pointer into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pointer: Option<String>,
    /// A query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parameter: Option<String>,
    /// What is wrong there, and how to mend it.
    pub(crate) detail: String,
}

impl Fault {
    /// What is wrong, with its place.
    fn sentence(&self) -> String {
        match (&self.pointer, &self.parameter) {
            (Some(pointer), _) if !pointer.is_empty() => format!("{pointer}: {}", self.detail),
            (_, Some(parameter)) => format!("{parameter}: {}", self.detail),
            _ => format!("The body: {}", self.detail),
        }
    }
}

impl From<Pointed> for Fault {
    fn from(pointed: Pointed) -> Self {
        Self { pointer: Some(pointed.pointer), parameter: None, detail: pointed.detail }
    }
}

/// An answer that is an error. What caused it goes to the log, never to the client.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) kind: Kind,
    rest: Box<Rest>,
}

/// Apart, so that what can fail returns little.
#[derive(Debug, Clone)]
struct Rest {
    detail: String,
    faults: Vec<Fault>,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<String>,
}

/// For the outermost layer, which adds the request's id, writes the body and logs the cause.
#[derive(Debug, Clone)]
pub(crate) struct Raised {
    pub(crate) problem: Problem,
    pub(crate) cause: Option<String>,
}

impl ApiError {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            kind,
            rest: Box::new(Rest { detail, faults: Vec::new(), header: None, cause: None }),
        }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    pub(crate) fn no_pipeline(name: &str) -> Self {
        Self::new(Kind::Unknown, format!("There is no pipeline {name:?}."))
    }

    pub(crate) fn no_schedule() -> Self {
        Self::new(Kind::Unknown, "There is no schedule with this id.")
    }

    pub(crate) fn no_run() -> Self {
        Self::new(Kind::Unknown, "There is no run with this id.")
    }

    /// What is wrong with the body or the query; `faults` is never empty.
    pub(crate) fn invalid(faults: Vec<Fault>) -> Self {
        let detail = match faults.as_slice() {
            [only] => only.sentence(),
            many => format!("{} things are wrong; `errors` lists them.", many.len()),
        };
        let mut error = Self::new(Kind::Invalid, detail);
        error.rest.faults = faults;
        error
    }

    pub(crate) fn pointed(errors: Vec<Pointed>) -> Self {
        Self::invalid(errors.into_iter().map(Fault::from).collect())
    }

    pub(crate) fn unavailable(detail: &str) -> Self {
        Self::new(Kind::Unavailable, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        let detail = "This is a fault of the server. It is in its log under the request's id.";
        Self::new(Kind::Internal, detail).with_cause(cause)
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.rest.header = Some((name, value));
        self
    }

    fn with_cause(mut self, cause: impl Into<String>) -> Self {
        self.rest.cause = Some(cause.into());
        self
    }

    pub(crate) fn problem(self) -> Problem {
        let (name, title, status) = self.kind.parts();
        Problem {
            kind: format!("urn:gathering:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: self.rest.detail,
            errors: self.rest.faults,
            request_id: None,
        }
    }
}

impl From<&store::Error> for ApiError {
    /// The one place where what Postgres refuses becomes an answer.
    fn from(error: &store::Error) -> Self {
        let refusal = error.as_database_error();
        let constraint = refusal.and_then(|refusal| refusal.constraint());
        let code = refusal.and_then(|refusal| refusal.code());
        match (constraint, code.as_deref()) {
            (Some("pipelines_name_taken"), _) => Self::new(
                Kind::NameTaken,
                "There is a pipeline of this name; PUT makes a new version of it.",
            ),
            (Some("schedules_name_taken"), _) => {
                Self::new(Kind::NameTaken, "There is a schedule of this name; choose another.")
            }
            (Some("users_email_taken"), _) => {
                Self::new(Kind::EmailTaken, "There is an account with this email.")
            }
            // Text that is not UTF-8 or has U+0000, a number that is too large, something too large for an index.
            (_, Some("22021" | "22P05" | "22003" | "54000")) => {
                Self::new(Kind::Invalid, "The database cannot hold a value of this request.")
                    .with_cause(error.to_string())
            }
            // Somebody else held the lock for too long.
            (_, Some("55P03")) => {
                Self::new(Kind::Conflict, "This is being changed by another request; try again.")
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            // A table or a column that is missing: migrations have not been applied yet.
            (_, Some("42P01" | "42703")) => {
                Self::unavailable("The database is not migrated yet.").with_cause(error.to_string())
            }
            _ if store::is_outage(error) || store::is_conflict(error) => {
                Self::unavailable("The database is away; try again.").with_cause(error.to_string())
            }
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        Self::from(&error)
    }
}

impl From<Arc<store::Error>> for ApiError {
    fn from(error: Arc<store::Error>) -> Self {
        Self::from(&*error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        let mut response = self.kind.parts().2.into_response();
        if let Some((name, value)) = self.rest.header.take() {
            response.headers_mut().insert(name, value);
        }
        let cause = self.rest.cause.take();
        response.extensions_mut().insert(Raised { problem: self.problem(), cause });
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_a_stable_type_and_no_cause() {
        let problem = ApiError::internal("password of the database").problem();
        let text = serde_json::to_string(&problem).expect("it is plain JSON");
        assert!(text.contains(r#""type":"urn:gathering:problem:internal""#), "{text}");
        assert!(!text.contains("password"), "{text}");
    }

    #[test]
    fn one_fault_is_the_detail_and_several_are_counted() {
        let fault = |at: &str| Pointed::new(at, "is wrong");
        assert_eq!(ApiError::pointed(vec![fault("/a")]).rest.detail, "/a: is wrong");
        assert!(
            ApiError::pointed(vec![fault("/a"), fault("/b")]).rest.detail.starts_with("2 things")
        );
    }
}
