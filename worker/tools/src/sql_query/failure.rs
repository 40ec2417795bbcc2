//! What a database's error means for the node.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;

use crate::Failure;
use crate::http::chain;

/// SQLSTATEs after which another attempt may end otherwise; two characters are a whole class.
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const PASSES: [&str; 10] = [
    "08",    // connection exceptions
    "40001", // serialization failure
    "40P01", // deadlock
    "53",    // not enough of something: connections, memory, disk
    "55P03", // a lock was not to be had
    "57014", // cancelled, by the time-out of the statement
    "57P01", // the server is shut down …
    "57P02", // … has crashed …
    "57P03", // … or starts
    "57P05", // an idle session was ended
];

/// Types an error by its consequence.
pub(super) fn failure(error: &Error) -> Failure {
    let Some(db) = error.as_db_error() else {
        let message = format!("the database cannot be asked: {}", chain(error));
        let broken =
            error.source().is_some_and(|cause| cause.downcast_ref::<io::Error>().is_some());
        return match error.is_closed() || broken {
            true => Failure::retryable(message),
            false => Failure::permanent(message),
        };
    };
    let code = db.code().code();
    let mut message = format!("the database says: {} (SQLSTATE {code})", db.message());
    for more in [db.detail(), db.hint()].into_iter().flatten() {
        message = format!("{message}; {more}");
    }
    match PASSES.iter().any(|start| code.starts_with(start)) {
        true => Failure::retryable(message),
        false => Failure::permanent(message),
    }
}
