//! How many requests somebody may send.

mod local;
mod rate;
mod shared;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::Response;

use self::local::Local;
pub(crate) use self::rate::{Rate, RateSetting};
pub(crate) use self::shared::Shared;
use crate::error::{ApiError, Kind};

/// Requests that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Signing in.
    Auth,
    /// Whatever may change something.
    Write,
    /// The rest.
    Read,
}

impl Tier {
    /// The tier of a route.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        match path {
            "/v1/auth/token" | "/v1/auth/register" | "/v1/auth/refresh" | "/v1/auth/password" => {
                Self::Auth
            }
            _ if method.is_safe() => Self::Read,
            _ => Self::Write,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// The limits of all tiers; none is off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    pub(crate) auth: Option<Rate>,
    pub(crate) write: Option<Rate>,
    pub(crate) read: Option<Rate>,
}

/// Counts, here or with the other replicas.
pub(crate) struct Limits {
    tiers: [Option<Local>; 3],
    shared: Option<Shared>,
}

/// Where somebody stands after a request.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    pub(crate) rate: Rate,
    pub(crate) remaining: u32,
    /// Until all of it is there again.
    pub(crate) reset: Duration,
    /// Until the next request is taken; set if this one is not.
    pub(crate) retry_after: Option<Duration>,
}

impl Limits {
    pub(crate) fn new(rates: Rates, shared: Option<Shared>) -> Self {
        let tiers = [rates.auth, rates.write, rates.read].map(|rate| rate.map(Local::new));
        Self { tiers, shared }
    }

    /// Counts one request of `who`; none if the tier has no limit.
    pub(crate) async fn charge(&self, tier: Tier, who: &str) -> Option<Count> {
        let local = self.tiers[tier as usize].as_ref()?;
        if let Some(shared) = &self.shared
            && let Some(count) = shared.charge(tier, who, local.rate()).await
        {
            return Some(count);
        }
        Some(local.charge(who))
    }

    /// Forgets those who have not come for a while.
    pub(crate) fn tidy(&self) {
        self.tiers.iter().flatten().for_each(Local::tidy);
    }
}

/// Whole seconds, rounded up: who waits so long is not turned away again.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl Count {
    /// What is answered if this request is one too many.
    pub(crate) fn refusal(&self) -> Option<ApiError> {
        let wait = seconds(self.retry_after?).max(1);
        let detail = format!("Only {} are taken of you; try again in {wait} s.", self.rate);
        let error = ApiError::new(Kind::TooMany, detail);
        Some(error.with_header(header::RETRY_AFTER, HeaderValue::from(wait)))
    }

    /// Tells it in the headers of an answer.
    pub(crate) fn mark(self, mut response: Response) -> Response {
        let reset = seconds(self.reset);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let policy = format!("{};w={}", self.rate.burst, self.rate.per.as_secs());
        let headers = response.headers_mut();
        let numbers: [(&'static str, u64); 6] = [
            ("ratelimit-limit", self.rate.burst.into()),
            ("ratelimit-remaining", self.remaining.into()),
            ("ratelimit-reset", reset),
            ("x-ratelimit-limit", self.rate.burst.into()),
            ("x-ratelimit-remaining", self.remaining.into()),
            ("x-ratelimit-reset", now + reset),
        ];
        for (name, number) in numbers {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
        }
        if let Ok(policy) = HeaderValue::try_from(policy) {
            headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
        }
        response
    }
}

/// On the answer of a route, which counts by itself, if at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted;

/// The answer, with a note that its route has counted it.
pub(crate) fn counted(mut response: Response) -> Response {
    response.extensions_mut().insert(Counted);
    response
}
