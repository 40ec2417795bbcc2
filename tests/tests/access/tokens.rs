//! Access tokens and refresh tokens, and what is tried with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use tests::client::{Client, kid, signed, signed_as, token};
use tests::fleet::{Role, SECRET, TestFleet};
use uuid::Uuid;

use super::{ADMIN, PASSWORD, account, admin, apis, nobody, text};

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("it has three parts");
    let bytes = URL_SAFE_NO_PAD.decode(part).expect("it is base64");
    serde_json::from_slice(&bytes).expect("it is JSON")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

async fn refresh(client: &Client, token: &str) -> tests::client::Answer {
    client.post("/v1/auth/refresh", &json!({"refresh_token": token})).await
}

#[tokio::test]
async fn an_access_token_has_all_claims_and_lasts_an_hour() {
    let fleet = TestFleet::start(apis(1)).await;
    let nobody = nobody(&fleet, 0);
    let pairs = [nobody.sign_in(ADMIN, PASSWORD).await, nobody.sign_in(ADMIN, PASSWORD).await];
    let access = text(&pairs[0], "access_token");
    let header = part(access, 0);
    assert_eq!((&header["alg"], &header["kid"]), (&json!("HS256"), &json!(kid(SECRET))));
    let claims = part(access, 1);
    let mut names: Vec<_> = claims.as_object().expect("an object").keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "nbf", "role", "sub"]);
    let number = |name: &str| claims[name].as_u64().expect("a number");
    assert_eq!(number("exp") - number("iat"), 3600);
    assert!(Uuid::try_parse(text(&claims, "sub")).is_ok(), "{claims}");
    assert_ne!(access, text(&pairs[1], "access_token"), "two sign-ins in one second differ");
    assert_ne!(text(&pairs[0], "refresh_token"), text(&pairs[1], "refresh_token"));
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_reuse_revokes_the_family() {
    let fleet = TestFleet::start(apis(1)).await;
    let nobody = nobody(&fleet, 0);
    let first = nobody.sign_in(ADMIN, PASSWORD).await;
    let other = nobody.sign_in(ADMIN, PASSWORD).await;
    let second = refresh(&nobody, text(&first, "refresh_token")).await;
    assert_eq!(second.header("cache-control"), Some("no-store"));
    let second = second.expect(200);
    for pair in [&first, &second] {
        nobody.with(text(pair, "access_token")).get("/v1/runs").await.expect(200);
    }
    let third = refresh(&nobody, text(&second, "refresh_token")).await.expect(200);
    // Somebody has kept a copy of the first.
    refresh(&nobody, text(&first, "refresh_token")).await.problem(401);
    refresh(&nobody, text(&third, "refresh_token")).await.problem(401);
    for pair in [&first, &second, &third] {
        nobody.with(text(pair, "access_token")).get("/v1/runs").await.problem(401);
    }
    nobody.with(text(&other, "access_token")).get("/v1/runs").await.expect(200);
    refresh(&nobody, text(&other, "refresh_token")).await.expect(200);
}

#[tokio::test]
async fn refresh_tokens_are_stored_hashed_and_end_after_30_days() {
    let fleet = TestFleet::start(apis(1)).await;
    let nobody = nobody(&fleet, 0);
    let pair = nobody.sign_in(ADMIN, PASSWORD).await;
    let token = text(&pair, "refresh_token");
    let plain = format!("select 1 from refresh_tokens where hash = '{token}'::bytea");
    assert_eq!(fleet.database().execute(&plain).await, 0);
    let days = "select count(*) from refresh_tokens where octet_length(hash) = 32
        and expires_at - clock_timestamp() between interval '29 days 23 hours' and interval '30 days'";
    assert_eq!(fleet.database().count(days).await, 1);
    fleet.database().execute("update refresh_tokens set expires_at = clock_timestamp()").await;
    refresh(&nobody, token).await.problem(401);
    refresh(&nobody, "").await.problem(401);
    nobody.post("/v1/auth/refresh", &json!({})).await.problem(422);
    nobody.post("/v1/auth/refresh", &json!({"refresh_token": 1})).await.problem(422);
}

#[tokio::test]
async fn two_uses_at_once_of_one_refresh_token_do_not_both_succeed() {
    let fleet = TestFleet::start(apis(2)).await;
    let pair = nobody(&fleet, 0).sign_in(ADMIN, PASSWORD).await;
    let token = text(&pair, "refresh_token");
    let (one, two) = (nobody(&fleet, 0), nobody(&fleet, 1));
    let (one, two) = tokio::join!(refresh(&one, token), refresh(&two, token));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 401]);
}

#[tokio::test]
async fn signing_out_revokes_the_token_and_its_family() {
    let fleet = TestFleet::start(apis(1)).await;
    let nobody = nobody(&fleet, 0);
    let first = nobody.sign_in(ADMIN, PASSWORD).await;
    let second = refresh(&nobody, text(&first, "refresh_token")).await.expect(200);
    let client = nobody.with(text(&second, "access_token"));
    client.post("/v1/auth/logout", &json!({})).await.expect(204);
    client.get("/v1/runs").await.problem(401);
    nobody.with(text(&first, "access_token")).get("/v1/runs").await.problem(401);
    refresh(&nobody, text(&second, "refresh_token")).await.problem(401);
    // An operator's token is refused after that, too.
    let operator = fleet.client();
    operator.post("/v1/auth/logout", &json!({})).await.expect(204);
    operator.get("/v1/runs").await.problem(401);
}

/// Every way in which a token can be wrong gets the same answer.
#[tokio::test]
async fn wrong_tokens_are_all_refused_with_the_same_words() {
    let fleet = TestFleet::start(apis(1)).await;
    let user = account(&admin(&fleet).await, "ada@example.org", "admin").await;
    let good = json!({"iss": "gathering", "aud": "gathering", "sub": user, "role": "admin",
        "jti": Uuid::new_v4(), "iat": now(), "nbf": now(), "exp": now() + 600});
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(SECRET, &claims)
    };
    let client = nobody(&fleet, 0);
    client.with(&signed(SECRET, &good)).get("/v1/runs").await.expect(200);

    let mut cases: Vec<(String, String)> = Vec::new();
    let mut case = |name: &str, token: String| cases.push((name.to_owned(), token));
    for name in ["iss", "aud", "sub", "role", "jti", "iat", "nbf", "exp"] {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        case(&format!("no {name}"), signed(SECRET, &claims));
        case(&format!("{name} is null"), with(name, Value::Null));
        case(&format!("{name} is a list"), with(name, json!(["gathering"])));
        case(&format!("{name} is negative"), with(name, json!(-1)));
    }
    for (name, claim, value) in [
        ("another issuer", "iss", json!("elsewhere")),
        ("another audience", "aud", json!("elsewhere")),
        ("a user that there is not", "sub", json!(Uuid::new_v4())),
        ("an empty sub", "sub", json!("")),
        ("a line break in sub", "sub", json!("a\nb")),
        ("a key for sub", "sub", json!("key:abcdefghij")),
        ("a role that there is not", "role", json!("root")),
        ("a jti that is none", "jti", json!("1")),
        ("expired", "exp", json!(now() - 1)),
        ("expires now", "exp", json!(now())),
        ("not yet", "nbf", json!(now() + 60)),
        ("from the future", "iat", json!(now() + 60)),
        ("exp as text", "exp", json!("4102444800")),
    ] {
        case(name, with(claim, value));
    }
    let head = |header: Header| signed_as(&header, SECRET, &good);
    let named = |alg| Header { kid: Some(kid(SECRET)), ..Header::new(alg) };
    case("HS384", head(named(Algorithm::HS384)));
    case("HS512", head(named(Algorithm::HS512)));
    case("no kid", head(Header::new(Algorithm::HS256)));
    case("an empty kid", head(Header { kid: Some(String::new()), ..Header::default() }));
    case("a forged kid", head(Header { kid: Some("../../dev/null".into()), ..Header::default() }));
    case("another secret", signed("another secret, as long as that one", &good));
    case(
        "another secret under our kid",
        signed_as(&named(Algorithm::HS256), "another secret, as long as that one", &good),
    );
    case("an empty secret under our kid", signed_as(&named(Algorithm::HS256), "", &good));
    let good_token = signed(SECRET, &good);
    let parts: Vec<&str> = good_token.split('.').collect();
    let encoded = |header: Value| URL_SAFE_NO_PAD.encode(header.to_string());
    for alg in
        ["none", "None", "NONE", "nOnE", "RS256", "ES256", "PS256", "EdDSA", "hs256", "", "HS256 "]
    {
        let header = encoded(json!({"alg": alg, "typ": "JWT", "kid": kid(SECRET)}));
        case(&format!("alg {alg:?} unsigned"), format!("{header}.{}.", parts[1]));
        case(
            &format!("alg {alg:?} with that signature"),
            format!("{header}.{}.{}", parts[1], parts[2]),
        );
    }
    case("no alg", format!("{}.{}.{}", encoded(json!({"kid": kid(SECRET)})), parts[1], parts[2]));
    case("no signature", format!("{}.{}.", parts[0], parts[1]));
    case("two parts", format!("{}.{}", parts[0], parts[1]));
    case("four parts", format!("{good_token}.x"));
    case("other claims under that signature", {
        let mut claims = good.clone();
        claims["exp"] = json!(now() + 9999);
        format!("{}.{}.{}", parts[0], encoded(claims), parts[2])
    });
    case(
        "a header that is not JSON",
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode("{"), parts[1], parts[2]),
    );
    case("nonsense", "nonsense".to_owned());
    case("dots", "..".to_owned());
    case("overlong", with("sub", json!("x".repeat(5000))));
    case("far too long", "x".repeat(50_000));
    case("a key that there is not", "gtr_abcdefghij_".to_owned() + &"a".repeat(52));
    case("half a key", "gtr_abcdefghij".to_owned());
    let mut texts = std::collections::BTreeSet::new();
    for (name, token) in &cases {
        let answer = client.with(token).get("/v1/runs").await;
        assert_eq!(answer.status, 401, "{name}: {}", answer.text);
        assert!(answer.header("www-authenticate").is_some(), "{name}");
        let mut problem = answer.problem(401);
        problem["request_id"] = Value::Null;
        texts.insert(problem.to_string());
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(cases.len() > 70, "{}", cases.len());
}

#[tokio::test]
async fn a_key_is_changed_while_its_tokens_go_on() {
    const NEW: &str = "the next secret of the tests, long enough";
    let mut fleet = TestFleet::start(apis(1)).await;
    let old = nobody(&fleet, 0).sign_in(ADMIN, PASSWORD).await;
    let rotated = [("GATHERING_JWT_SECRET", NEW), ("GATHERING_JWT_OTHER_SECRETS", SECRET)];
    fleet.add(Role::Api, &rotated);
    fleet.add(Role::Api, &[("GATHERING_JWT_SECRET", NEW)]);
    fleet.ready().await;
    let (rotated, without) = (nobody(&fleet, 1), nobody(&fleet, 2));
    rotated.with(text(&old, "access_token")).get("/v1/runs").await.expect(200);
    without.with(text(&old, "access_token")).get("/v1/runs").await.problem(401);
    let new = rotated.sign_in(ADMIN, PASSWORD).await;
    assert_eq!(part(text(&new, "access_token"), 0)["kid"], kid(NEW));
    without.with(text(&new, "access_token")).get("/v1/runs").await.expect(200);
    nobody(&fleet, 0).with(text(&new, "access_token")).get("/v1/runs").await.problem(401);
}

#[tokio::test]
async fn an_operators_token_needs_no_account_and_one_of_a_user_does() {
    let fleet = TestFleet::start(apis(1)).await;
    let client = nobody(&fleet, 0);
    let hour = Duration::from_secs(3600);
    let me =
        client.with(&token(SECRET, "ops", "operator", hour)).get("/v1/auth/me").await.expect(200);
    assert_eq!(
        (text(&me, "kind"), text(&me, "sub"), text(&me, "role")),
        ("operator", "ops", "operator")
    );
    // For the id of a user it is that user's, with the role that they have.
    let id = account(&admin(&fleet).await, "ada@example.org", "viewer").await;
    let me = client.with(&token(SECRET, &id, "admin", hour)).get("/v1/auth/me").await.expect(200);
    assert_eq!((text(&me, "kind"), text(&me, "role")), ("user", "viewer"));
}
