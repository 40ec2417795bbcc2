//! Who may do what: accounts, tokens, keys, roles, the audit, limits and secrets, against running apis.

mod accounts;
mod audit;
mod fuzz;
mod hygiene;
mod keys;
mod limits;
mod revocation;
mod roles;
mod secrets;
mod tokens;

use std::time::Duration;

use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, Role, TestFleet};

pub(crate) const ADMIN: &str = "Admin@example.org";
pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Apis alone, with a first admin.
pub(crate) fn apis(count: usize) -> FleetOptions {
    let options =
        FleetOptions { apis: count, workers: 0, schedulers: 0, ..FleetOptions::default() };
    options.with(Role::Api, "GATHERING_ADMIN_EMAIL", ADMIN).with(
        Role::Api,
        "GATHERING_ADMIN_PASSWORD",
        PASSWORD,
    )
}

/// A client without a token.
pub(crate) fn nobody(fleet: &TestFleet, api: usize) -> Client {
    fleet.client_of(api).with_token(None)
}

/// The first admin, signed in.
pub(crate) async fn admin(fleet: &TestFleet) -> Client {
    signed_in(fleet, ADMIN).await
}

/// Somebody who has the password of the tests, signed in.
pub(crate) async fn signed_in(fleet: &TestFleet, email: &str) -> Client {
    let nobody = nobody(fleet, 0);
    let pair = nobody.sign_in(email, PASSWORD).await;
    nobody.with(text(&pair, "access_token"))
}

/// An account with the password of the tests; returns its id.
pub(crate) async fn account(admin: &Client, email: &str, role: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD, "role": role});
    text(&admin.post("/v1/users", &body).await.expect(201), "id").to_owned()
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}
