//! People and their passwords.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fleet::{Role, TestFleet};

use super::{ADMIN, PASSWORD, account, admin, apis, nobody, signed_in, text};

#[tokio::test]
async fn the_first_admin_comes_from_the_environment_and_is_stored_like_anybody() {
    let mut fleet = TestFleet::start(apis(1)).await;
    let me = admin(&fleet).await.get("/v1/auth/me").await.expect(200);
    assert_eq!((text(&me, "kind"), text(&me, "role")), ("user", "admin"));
    assert_eq!(text(&me["user"], "email"), ADMIN);
    // Another password in the environment is not the account's.
    fleet.stop(Role::Api, 0).await;
    fleet.add(Role::Api, &[("GATHERING_ADMIN_PASSWORD", "another horse battery")]);
    fleet.ready().await;
    let nobody = nobody(&fleet, 1);
    nobody.sign_in("admin@EXAMPLE.org", PASSWORD).await;
    let body = json!({"email": ADMIN, "password": "another horse battery"});
    nobody.post("/v1/auth/token", &body).await.problem(401);
    assert_eq!(fleet.database().count("select count(*) from users").await, 1);
    let stored = "select count(*) from users where password_hash like '$argon2id$v=19$%'";
    assert_eq!(fleet.database().count(stored).await, 1);
}

#[tokio::test]
async fn registration_is_closed_unless_it_is_opened_and_makes_viewers() {
    let mut fleet = TestFleet::start(apis(1)).await;
    let ada = json!({"email": "Ada@example.org", "password": PASSWORD, "name": "Ada"});
    nobody(&fleet, 0).post("/v1/auth/register", &ada).await.problem(403);
    fleet.add(Role::Api, &[("GATHERING_REGISTRATION", "open")]);
    fleet.ready().await;
    let open = nobody(&fleet, 1);
    let made = open.post("/v1/auth/register", &ada).await.expect(201);
    assert_eq!((text(&made, "role"), text(&made, "name")), ("viewer", "Ada"));
    let again = json!({"email": "ADA@Example.ORG", "password": PASSWORD});
    let problem = open.post("/v1/auth/register", &again).await.problem(409);
    assert!(text(&problem, "type").ends_with("email-taken"), "{problem}");
    // The account is there for the other replica, too.
    let client = signed_in(&fleet, "ada@example.org").await;
    client.get("/v1/runs").await.expect(200);
    client.post("/v1/actions", &json!({"action": "echo"})).await.problem(403);
}

#[tokio::test]
async fn a_password_has_8_to_256_characters_and_is_not_a_common_one() {
    let fleet = TestFleet::start(apis(1)).await;
    let admin = admin(&fleet).await;
    let longest = "ü".repeat(256);
    for (index, password) in
        ["short77", "Password123", "12345678", &"x".repeat(257)].iter().enumerate()
    {
        let body = json!({"email": format!("a{index}@example.org"), "password": password});
        let problem = admin.post("/v1/users", &body).await.problem(422);
        assert_eq!(problem["errors"][0]["pointer"], "/password", "{problem}");
        assert!(!problem.to_string().contains(password), "{problem}");
    }
    for (index, password) in ["8 chars!", &longest].iter().enumerate() {
        let email = format!("b{index}@example.org");
        admin.post("/v1/users", &json!({"email": email, "password": password})).await.expect(201);
        nobody(&fleet, 0).sign_in(&email, password).await;
    }
}

#[tokio::test]
async fn an_admin_makes_disables_and_promotes_users_but_one_admin_stays() {
    let fleet = TestFleet::start(apis(1)).await;
    let admin = admin(&fleet).await;
    let id = account(&admin, "bob@example.org", "operator").await;
    let path = format!("/v1/users/{id}");
    assert_eq!(admin.get(&path).await.expect(200)["role"], "operator");
    assert_eq!(admin.list("/v1/users?limit=1").await.len(), 2);
    assert_eq!(admin.patch(&path, &json!({"role": "viewer"})).await.expect(200)["role"], "viewer");
    assert!(
        admin.patch(&path, &json!({"disabled": true})).await.expect(200)["disabled_at"].is_string()
    );
    let bob = json!({"email": "bob@example.org", "password": PASSWORD});
    nobody(&fleet, 0).post("/v1/auth/token", &bob).await.problem(401);
    assert!(
        admin.patch(&path, &json!({"disabled": false})).await.expect(200)["disabled_at"].is_null()
    );
    nobody(&fleet, 0).post("/v1/auth/token", &bob).await.expect(200);
    let me = admin.get("/v1/auth/me").await.expect(200);
    let own = format!("/v1/users/{}", text(&me, "sub"));
    for change in [json!({"disabled": true}), json!({"role": "viewer"})] {
        let problem = admin.patch(&own, &change).await.problem(409);
        assert!(text(&problem, "type").ends_with("last-admin"), "{problem}");
    }
    for (body, pointer) in [
        (json!({"role": "root"}), "/role"),
        (json!({"disabled": "yes"}), "/disabled"),
        (json!({"email": "x@y.z"}), "/email"),
    ] {
        assert_eq!(admin.patch(&path, &body).await.problem(422)["errors"][0]["pointer"], pointer);
    }
    admin.patch("/v1/users/00000000-0000-7000-8000-000000000000", &json!({})).await.problem(404);
}

#[tokio::test]
async fn a_password_is_changed_by_its_owner_and_ends_all_sign_ins() {
    let fleet = TestFleet::start(apis(1)).await;
    account(&admin(&fleet).await, "bob@example.org", "viewer").await;
    let bob = signed_in(&fleet, "bob@example.org").await;
    let path = "/v1/auth/password";
    let wrong = json!({"current_password": "not this one", "new_password": "a better one"});
    assert_eq!(
        bob.post(path, &wrong).await.problem(422)["errors"][0]["pointer"],
        "/current_password"
    );
    let right = json!({"current_password": PASSWORD, "new_password": "a better one"});
    bob.post(path, &right).await.expect(204);
    bob.get("/v1/runs").await.problem(401);
    nobody(&fleet, 0).sign_in("bob@example.org", "a better one").await;
    let old = json!({"email": "bob@example.org", "password": PASSWORD});
    nobody(&fleet, 0).post("/v1/auth/token", &old).await.problem(401);
}

#[tokio::test]
async fn signing_in_takes_json_and_the_form_of_oauth() {
    let fleet = TestFleet::start(apis(1)).await;
    let nobody = nobody(&fleet, 0);
    let form = "application/x-www-form-urlencoded";
    let good = format!("grant_type=password&username={ADMIN}&password={PASSWORD}&scope=")
        .replace(' ', "+");
    let answer = nobody.post_raw("/v1/auth/token", form, good.clone()).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let pair = answer.expect(200);
    assert_eq!((text(&pair, "token_type"), &pair["expires_in"]), ("Bearer", &json!(3600)));
    for (body, status) in [
        (good.replace("grant_type=password", "grant_type=client_credentials"), 422),
        (format!("{good}&password=x"), 400),
        ("grant_type=password".to_owned(), 422),
        ("%00=%00&%ff".to_owned(), 422),
    ] {
        let answer = nobody.post_raw("/v1/auth/token", form, body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    nobody.post_raw("/v1/auth/token", "text/plain", "x").await.problem(415);
}

#[tokio::test]
async fn who_does_not_get_in_learns_nothing_not_even_by_the_clock() {
    let fleet = TestFleet::start(apis(1)).await;
    let admin = admin(&fleet).await;
    account(&admin, "here@example.org", "viewer").await;
    let gone = account(&admin, "gone@example.org", "viewer").await;
    admin.patch(&format!("/v1/users/{gone}"), &json!({"disabled": true})).await.expect(200);
    let nobody = nobody(&fleet, 0);
    let cases = [
        ("unknown@example.org", "a password of nobody"),
        ("here@example.org", "not the password"),
        ("gone@example.org", PASSWORD),
        ("gone@example.org", "not the password"),
        ("no email at all", PASSWORD),
    ];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); cases.len()];
    let mut said = Vec::new();
    for _ in 0..9 {
        for (index, (email, password)) in cases.iter().enumerate() {
            let body = json!({"email": email, "password": password});
            let began = Instant::now();
            let answer = nobody.post("/v1/auth/token", &body).await;
            times[index].push(began.elapsed());
            let mut headers: Vec<_> = answer.headers.keys().map(|name| name.to_string()).collect();
            headers.sort();
            let mut problem = answer.problem(401);
            problem["request_id"] = Value::Null;
            said.push((problem, headers));
        }
    }
    assert!(said.iter().all(|answer| *answer == said[0]), "{said:#?}");
    let medians: Vec<Duration> = times
        .iter_mut()
        .map(|times| {
            times.sort();
            times[times.len() / 2]
        })
        .collect();
    let (least, most) = (medians.iter().min().expect("some"), medians.iter().max().expect("some"));
    assert!(*most < *least * 2, "{medians:?} for {cases:?}");
}

#[tokio::test]
async fn a_burst_of_sign_ins_does_not_slow_health() {
    let fleet = TestFleet::start(apis(1)).await;
    let nobody = nobody(&fleet, 0);
    let body = json!({"email": ADMIN, "password": PASSWORD});
    let alone = Instant::now();
    nobody.post("/v1/auth/token", &body).await.expect(200);
    let alone = alone.elapsed();
    let burst: Vec<_> = (0..30)
        .map(|_| {
            let (nobody, body) = (nobody.clone(), body.clone());
            tokio::spawn(async move { nobody.post("/v1/auth/token", &body).await.status })
        })
        .collect();
    let mut times = Vec::new();
    while burst.iter().any(|one| !one.is_finished()) {
        let began = Instant::now();
        nobody.get("/health/live").await.expect(200);
        times.push(began.elapsed());
        // A look every few milliseconds is the load; asked without a pause it would measure itself.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for one in burst {
        let status = one.await.expect("it ends");
        assert!([200, 503].contains(&status), "{status}");
    }
    times.sort();
    let median = times[times.len() / 2];
    assert!(times.len() >= 10, "{} answers only", times.len());
    assert!(median < Duration::from_millis(50), "{median:?}, while a sign-in takes {alone:?}");
}
