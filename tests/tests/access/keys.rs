//! Keys of programs.

use std::time::Duration;

use serde_json::json;
use tests::fleet::TestFleet;
use tests::wait::{eventually, seen};

use super::{account, admin, apis, nobody, signed_in, text};

#[tokio::test]
async fn a_key_is_shown_once_stored_hashed_and_says_when_it_was_used() {
    let fleet = TestFleet::start(apis(1)).await;
    let admin = admin(&fleet).await;
    let answer = admin.post("/v1/api-keys", &json!({"name": "ci", "role": "operator"})).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let made = answer.expect(201);
    let (key, prefix) = (text(&made, "key"), text(&made, "prefix"));
    assert!(key.starts_with(&format!("gtr_{prefix}_")), "{made}");
    let secret = &key[5 + prefix.len()..];
    let listed = &admin.list("/v1/api-keys").await[0];
    assert!(listed["last_used_at"].is_null() && listed.get("key").is_none(), "{listed}");
    assert!(!listed.to_string().contains(secret));
    let dump = format!(
        "select 1 from api_keys k where k::text like '%{secret}%' or encode(hash, 'escape') like '%{secret}%'"
    );
    assert_eq!(fleet.database().execute(&dump).await, 0);
    let program = nobody(&fleet, 0).with(key);
    let me = program.get("/v1/auth/me").await.expect(200);
    assert_eq!(
        (text(&me, "kind"), text(&me, "role"), text(&me, "sub")),
        ("key", "operator", format!("key:{prefix}").as_str())
    );
    program.get("/v1/users").await.problem(403);
    eventually(Duration::from_secs(5), "the use to be noted", async || {
        let used = admin.list("/v1/api-keys").await[0]["last_used_at"].clone();
        seen(used.is_string(), used)
    })
    .await;
    // One letter is wrong.
    let last = if key.ends_with('a') { "b" } else { "a" };
    let wrong = format!("{}{last}", &key[..key.len() - 1]);
    nobody(&fleet, 0).with(&wrong).get("/v1/runs").await.problem(401);
}

#[tokio::test]
async fn a_key_is_not_above_its_owner_then_or_later() {
    let fleet = TestFleet::start(apis(1)).await;
    let admin = admin(&fleet).await;
    let id = account(&admin, "bob@example.org", "operator").await;
    let bob = signed_in(&fleet, "bob@example.org").await;
    let above = bob.post("/v1/api-keys", &json!({"name": "k", "role": "admin"})).await.problem(422);
    assert_eq!(above["errors"][0]["pointer"], "/role");
    let made =
        bob.post("/v1/api-keys", &json!({"name": "k", "role": "operator"})).await.expect(201);
    let program = nobody(&fleet, 0).with(text(&made, "key"));
    program.post("/v1/actions", &json!({"action": "echo"})).await.expect(202);
    admin.patch(&format!("/v1/users/{id}"), &json!({"role": "viewer"})).await.expect(200);
    program.post("/v1/actions", &json!({"action": "echo"})).await.problem(403);
    program.get("/v1/runs").await.expect(200);
}

#[tokio::test]
async fn a_key_ends_when_it_was_to_and_belongs_to_its_owner() {
    let fleet = TestFleet::start(apis(1)).await;
    let admin = admin(&fleet).await;
    let bob_id = account(&admin, "bob@example.org", "viewer").await;
    account(&admin, "eve@example.org", "viewer").await;
    let bob = signed_in(&fleet, "bob@example.org").await;
    let eve = signed_in(&fleet, "eve@example.org").await;
    let short =
        bob.post("/v1/api-keys", &json!({"name": "short", "expires_in": "1s"})).await.expect(201);
    let program = nobody(&fleet, 0).with(text(&short, "key"));
    eventually(Duration::from_secs(5), "the key to end", async || {
        let status = program.get("/v1/runs").await.status;
        seen(status == 401, status)
    })
    .await;
    let long =
        bob.post("/v1/api-keys", &json!({"name": "long", "expires_in": "90d"})).await.expect(201);
    let path = format!("/v1/api-keys/{}", text(&long, "id"));
    assert_eq!(bob.list("/v1/api-keys?limit=1").await.len(), 2);
    assert!(eve.list("/v1/api-keys").await.is_empty());
    assert_eq!(admin.list(&format!("/v1/api-keys?owner={bob_id}")).await.len(), 2);
    eve.delete(&path).await.problem(404);
    let for_bob = json!({"name": "k", "owner": bob_id});
    eve.post("/v1/api-keys", &for_bob).await.problem(403);
    assert_eq!(text(&admin.post("/v1/api-keys", &for_bob).await.expect(201), "role"), "viewer");
    // Keys neither make nor revoke keys, and do not sign out.
    let program = nobody(&fleet, 0).with(text(&long, "key"));
    program.post("/v1/api-keys", &json!({"name": "k"})).await.problem(403);
    program.delete(&path).await.problem(403);
    program.post("/v1/auth/logout", &json!({})).await.problem(403);
    bob.delete(&path).await.expect(204);
    program.get("/v1/runs").await.problem(401);
    for body in [
        json!({}),
        json!({"name": ""}),
        json!({"name": "k", "expires_in": "0s"}),
        json!({"name": "k", "owner": "x"}),
    ] {
        bob.post("/v1/api-keys", &body).await.problem(422);
    }
}
