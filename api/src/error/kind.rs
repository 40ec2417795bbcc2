//! The kinds of problems.

use axum::http::StatusCode;

/// What went wrong, by what the client can do about it. Each has one stable `type`, title and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Malformed,
    NotSignedIn,
    NotAllowed,
    Unknown,
    MethodNotAllowed,
    TooSlow,
    Conflict,
    NameTaken,
    EmailTaken,
    LastAdmin,
    Paused,
    NotEnded,
    Ended,
    NothingLeft,
    NotStarted,
    Redriven,
    InFlight,
    VersionMismatch,
    TooLarge,
    UnsupportedMediaType,
    Invalid,
    KeyReused,
    TooMany,
    Unavailable,
    Internal,
}

impl Kind {
    /// The end of its `type`, its title and its status.
    pub(crate) fn parts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::Malformed => ("malformed", "The request cannot be read", StatusCode::BAD_REQUEST),
            Self::NotSignedIn => ("not-signed-in", "Not signed in", StatusCode::UNAUTHORIZED),
            Self::NotAllowed => ("not-allowed", "Not allowed", StatusCode::FORBIDDEN),
            Self::Unknown => ("unknown", "Not found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "Method not allowed", StatusCode::METHOD_NOT_ALLOWED)
            }
            Self::TooSlow => ("too-slow", "The request took too long", StatusCode::REQUEST_TIMEOUT),
            Self::Conflict => ("conflict", "Conflict", StatusCode::CONFLICT),
            Self::NameTaken => ("name-taken", "The name is taken", StatusCode::CONFLICT),
            Self::EmailTaken => ("email-taken", "The email is taken", StatusCode::CONFLICT),
            Self::LastAdmin => ("last-admin", "The last admin", StatusCode::CONFLICT),
            Self::Paused => ("paused", "The pipeline is paused", StatusCode::CONFLICT),
            Self::NotEnded => ("not-ended", "The run has not ended", StatusCode::CONFLICT),
            Self::Ended => ("ended", "The run has ended", StatusCode::CONFLICT),
            Self::NothingLeft => {
                ("nothing-left", "The schedule has nothing left to fire", StatusCode::CONFLICT)
            }
            Self::NotStarted => {
                ("not-started", "What the schedule starts cannot be started", StatusCode::CONFLICT)
            }
            Self::Redriven => {
                ("redriven", "The dead letter was redriven before", StatusCode::CONFLICT)
            }
            Self::InFlight => {
                ("in-flight", "The same request is still in flight", StatusCode::CONFLICT)
            }
            Self::VersionMismatch => {
                ("version-mismatch", "Another version", StatusCode::PRECONDITION_FAILED)
            }
            Self::TooLarge => ("too-large", "Too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                "Unsupported media type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::Invalid => ("invalid", "Invalid", StatusCode::UNPROCESSABLE_ENTITY),
            Self::KeyReused => (
                "key-reused",
                "The idempotency key was used for another request",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            Self::TooMany => ("too-many", "Too many requests", StatusCode::TOO_MANY_REQUESTS),
            Self::Unavailable => {
                ("unavailable", "Unavailable for now", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Internal => ("internal", "Internal error", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    /// The kind for an answer that another layer gave without a problem document.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::Unknown,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::TooSlow,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::TOO_MANY_REQUESTS => Self::TooMany,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_client_error() => Self::Malformed,
            _ => Self::Internal,
        }
    }
}
