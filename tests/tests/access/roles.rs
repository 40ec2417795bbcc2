//! Each role may do what it is for, on every route that there is.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tests::client::{Answer, Client, token};
use tests::fleet::{FleetOptions, Role, SECRET, TestFleet};

use super::{account, admin, apis, nobody, signed_in, text};

const ROLES: [&str; 3] = ["viewer", "operator", "admin"];

/// The method and path of every operation in the document, and what it needs.
pub(super) async fn operations(client: &Client) -> Vec<(Method, String, Value)> {
    let document = client.get("/openapi.json").await.expect(200);
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            operations.push((method, path.clone(), operation.clone()));
        }
    }
    assert!(operations.len() > 30, "{}", operations.len());
    operations
}

/// Whether somebody was turned away at the door, for want of a role.
fn is_denied(answer: &Answer) -> bool {
    answer.status == 403
        && answer.body["detail"]
            .as_str()
            .is_some_and(|text| text.starts_with("This needs the role"))
}

#[tokio::test]
async fn every_route_lets_in_those_whom_it_is_for_and_nobody_else() {
    let fleet = TestFleet::start(apis(1)).await;
    let nobody = nobody(&fleet, 0);
    let mut denied = 0;
    for (method, path, operation) in operations(&nobody).await {
        let needs = text(&operation, "x-needs");
        let least = ROLES.iter().position(|role| *role == needs);
        assert!(least.is_some() || needs == "nobody", "{method} {path} needs {needs:?}");
        let at = path
            .replace("{id}", "00000000-0000-7000-8000-000000000000")
            .replace("{name}", "nothing")
            .replace("{node}", "nothing");
        let ask = async |client: &Client| {
            let request = client.request(method.clone(), &at);
            let request = if method == Method::GET { request } else { request.json(&json!({})) };
            client.send(request).await
        };
        let answer = ask(&nobody).await;
        let is_refused = answer.status == 401 && answer.header("www-authenticate").is_some();
        assert_eq!(is_refused, least.is_some(), "{method} {path} as nobody: {}", answer.text);
        for (index, role) in ROLES.iter().enumerate() {
            // A token of its own for each, since one of the routes revokes it.
            let token = token(SECRET, "somebody", role, Duration::from_secs(600));
            let answer = ask(&nobody.with(&token)).await;
            let expected = least.is_some_and(|least| index < least);
            denied += usize::from(expected);
            assert_eq!(is_denied(&answer), expected, "{method} {path} as {role}: {}", answer.text);
            assert_ne!(answer.status, 401, "{method} {path} as {role}: {}", answer.text);
            assert!(answer.status < 500, "{method} {path} as {role}: {}", answer.text);
        }
    }
    assert!(denied >= 15, "{denied}");
}

#[tokio::test]
async fn owners_and_those_who_submit_are_recorded() {
    let options = FleetOptions { workers: 1, ..apis(1) };
    let fleet = TestFleet::start(options.with(Role::Api, "GATHERING_REGISTRATION", "open")).await;
    let admin = admin(&fleet).await;
    let id = account(&admin, "bob@example.org", "operator").await;
    let bob = signed_in(&fleet, "bob@example.org").await;
    let made = bob.create_pipeline(&crate::definitions::chain("p", 1)).await;
    assert_eq!(text(&made, "owner"), id);
    let key = bob.post("/v1/api-keys", &json!({"name": "k"})).await.expect(201);
    let program = nobody(&fleet, 0).with(text(&key, "key"));
    let runs = [bob.submit("p", json!({})).await, program.submit("p", json!({})).await];
    let by = [id.clone(), format!("key:{}", text(&key, "prefix"))];
    for (run, by) in runs.iter().zip(&by) {
        assert_eq!(&admin.wait(run).await.expect("completed").created_by, by);
    }
    let again = admin.rerun(&runs[0], "start").await;
    let me = admin.get("/v1/auth/me").await.expect(200);
    assert_eq!(admin.wait(&again).await.created_by, text(&me, "sub"));
    let listed: Vec<_> =
        admin.list("/v1/runs").await.iter().map(|run| text(run, "created_by").to_owned()).collect();
    assert_eq!(listed[2], id);
    fleet.finish().await;
}
