#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn answering(allowed: &str, addresses: &[&str]) -> Guard {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let names = move |_| std::future::ready(Ok(addresses.clone())).boxed();
    Guard::asking(allowed.parse().unwrap(), Arc::new(names))
}

#[tokio::test]
async fn only_checked_addresses_of_a_name_are_given_out() {
    let mixed = answering("", &["10.0.0.1", "8.8.8.8", "::1"]);
    assert_eq!(mixed.addresses("x.example").await.unwrap(), ["8.8.8.8".parse::<IpAddr>().unwrap()]);
    let private = answering("", &["10.0.0.1", "::1"]);
    let error = private.addresses("X.example.").await.unwrap_err().to_string();
    assert!(error.contains("`x.example`") && error.contains("GATHERING_ALLOWED_HOSTS"), "{error}");
    assert!(!error.contains("10.0.0.1"), "how names resolve inside is nobody's business: {error}");
    assert!(matches!(answering("", &[]).addresses("x").await, Err(Unreachable::Unknown(_))));
    // Opened by name, whatever it resolves to; and by address, whatever its name is.
    assert_eq!(
        answering("x.example", &["10.0.0.1"]).addresses("X.EXAMPLE").await.unwrap().len(),
        1
    );
    assert_eq!(
        answering("10.0.0.0/8", &["10.0.0.1", "127.0.0.1"]).addresses("y").await.unwrap().len(),
        1
    );
    // An address is not asked for, and is not a name.
    assert!(answering("", &["8.8.8.8"]).addresses("[::1]").await.is_err());
}
