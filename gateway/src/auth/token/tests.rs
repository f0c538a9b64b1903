//! Tokens good and bad.

use super::*;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn verifier() -> Verifier {
    Verifier::new(Key::parse(SECRET).expect("a key"), None, None)
}

fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

fn token(claims: &Value) -> String {
    signed(&json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET)
}

fn grant(claims: &Value) -> Result<Grant, Fault> {
    verifier().grant(token(claims).as_bytes())
}

/// Claims of a token that is good but for `change`.
fn claims(change: &Value) -> Value {
    let mut claims = json!({"sub": "ann", "exp": now() + 600});
    for (name, value) in change.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn refused(verifier: &Verifier, token: &str) -> String {
    let fault = verifier.grant(token.as_bytes()).expect_err("refused");
    assert_eq!(fault.code, Code::Unauthenticated, "{fault}");
    fault.message
}

#[test]
fn a_good_token_names_its_user_and_grants_everything() {
    let grant = grant(&claims(&json!({}))).expect("good");
    assert_eq!((&*grant.user, grant.covers_all()), ("ann", true));
    for scope in [Scope::Publish, Scope::Listen, Scope::Read, Scope::Admin] {
        assert_eq!(grant.permits(scope), Ok(()));
    }
    assert!(grant.until.is_some());
}

#[test]
fn shows_and_scopes_narrow_a_grant() {
    let some = json!({"shows": ["a", 7], "scope": "openid read publish"});
    let grant = grant(&claims(&some)).expect("good");
    let covers = |show: &str| grant.covers(&show.parse().expect("id")).map_err(|f| f.code);
    assert_eq!((covers("a"), covers("7")), (Ok(()), Ok(())));
    assert_eq!(covers("8"), Err(Code::Forbidden));
    assert!(!grant.covers_all());
    assert_eq!(grant.permits(Scope::Read), Ok(()));
    assert_eq!(grant.permits(Scope::Publish), Ok(()));
    assert_eq!(
        grant.permits(Scope::Admin).map_err(|f| f.code),
        Err(Code::Forbidden)
    );
}

#[test]
fn an_empty_list_grants_nothing_and_a_star_everything() {
    for (shows, all) in [(json!("*"), true), (json!(["*"]), true), (json!([]), false)] {
        let grant = grant(&claims(&json!({"shows": shows}))).expect("good");
        assert_eq!((grant.covers_all(), grant.covers_named("7")), (all, all));
    }
    let grant = grant(&claims(&json!({"scope": ""}))).expect("good");
    assert!(grant.permits(Scope::Read).is_err());
}

#[test]
fn a_claim_of_another_shape_voids_the_token() {
    for change in [
        json!({"shows": null}),
        json!({"shows": "7"}),
        json!({"shows": {"7": true}}),
        json!({"shows": [["7"]]}),
        json!({"scope": null}),
        json!({"scope": ["read"]}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": "  "}),
        json!({"sub": 7}),
        json!({"sub": "a\nb"}),
        json!({"sub": "x".repeat(SUB_MAX + 1)}),
        json!({"exp": null}),
        json!({"exp": "4102444800"}),
        json!({"exp": -1}),
        json!({"nbf": "yesterday"}),
    ] {
        refused(&verifier(), &token(&claims(&change)));
    }
    refused(&verifier(), &token(&json!({"sub": "ann"})));
    refused(&verifier(), &token(&json!({"exp": now() + 600})));
}

#[test]
fn clocks_may_differ_by_a_minute() {
    for (change, message) in [
        (json!({"exp": now() - 70}), "The token has expired."),
        (json!({"nbf": now() + 90}), "The token is not valid yet."),
    ] {
        assert_eq!(refused(&verifier(), &token(&claims(&change))), message);
    }
    assert!(grant(&claims(&json!({"exp": now() - 30}))).is_ok());
    assert!(grant(&claims(&json!({"nbf": now() + 30}))).is_ok());
}

#[test]
fn a_connection_ends_when_the_leeway_is_over() {
    let (wall, now) = (UNIX_EPOCH + Duration::from_secs(1000), Instant::now());
    let after = |exp| end(exp, wall, now).map(|end| end - now);
    assert_eq!(after(1010.0), Some(Duration::from_secs(70)));
    assert_eq!(after(950.0), Some(Duration::from_secs(10)));
    assert_eq!(after(10.0), Some(Duration::ZERO));
    assert_eq!(after(1e300), None, "never");
}

#[test]
fn the_algorithm_is_never_the_tokens_choice() {
    let good = claims(&json!({}));
    for alg in ["none", "None", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        refused(&verifier(), &signed(&json!({"alg": alg}), &good, SECRET));
    }
    let unsigned = token(&good);
    let unsigned = unsigned.rsplit_once('.').expect("three parts").0;
    refused(&verifier(), unsigned);
    refused(&verifier(), &format!("{unsigned}."));
    // The old trick: the public key, known to everybody, as a secret.
    let pem = include_bytes!("../../../tests/keys/rsa.pub.pem");
    let rsa = Verifier::new(Key::parse(pem).expect("a key"), None, None);
    refused(&rsa, &signed(&json!({"alg": "HS256"}), &good, pem));
}

#[test]
fn forged_and_damaged_tokens_are_refused() {
    let good = token(&claims(&json!({})));
    assert!(verifier().grant(good.as_bytes()).is_ok());
    let other = signed(&json!({"alg": "HS256"}), &claims(&json!({})), &[7; 32]);
    refused(&verifier(), &other);
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = message.split_once('.').expect("three parts");
    let payload = URL_SAFE_NO_PAD.encode(claims(&json!({"sub": "bob"})).to_string());
    refused(&verifier(), &format!("{header}.{payload}.{signature}"));
    for nonsense in ["x", ".", "..", "a.b", "a.b.c", "a.b.c.d", "\u{0}"] {
        refused(&verifier(), nonsense);
    }
}

#[test]
fn issuer_and_audience_are_required_where_they_are_set() {
    let key = || Key::parse(SECRET).expect("a key");
    let strict = Verifier::new(key(), Some("https://id.example"), Some("aircheck"));
    let with = |iss: Value, aud: Value| token(&claims(&json!({"iss": iss, "aud": aud})));
    let (iss, aud) = (json!("https://id.example"), json!("aircheck"));
    assert!(
        strict
            .grant(with(iss.clone(), aud.clone()).as_bytes())
            .is_ok()
    );
    let several = json!(["other", "aircheck"]);
    assert!(strict.grant(with(iss.clone(), several).as_bytes()).is_ok());
    refused(&strict, &with(json!("https://evil.example"), aud.clone()));
    refused(&strict, &with(iss.clone(), json!("other")));
    refused(&strict, &token(&claims(&json!({"iss": iss}))));
    refused(&strict, &token(&claims(&json!({"aud": aud}))));
    // A token for somebody is for nobody else (RFC 7519, 4.1.3).
    refused(&verifier(), &token(&claims(&json!({"aud": aud}))));
}

/// Made by another library: the tokens beside the keys, of `ann`, for show 7, until 2100.
#[test]
fn each_kind_of_key_verifies_tokens_of_its_own_algorithms_only() {
    let rsa: &[u8] = include_bytes!("../../../tests/keys/rsa.pub.pem");
    let pkcs1: &[u8] = include_bytes!("../../../tests/keys/rsa.pkcs1.pub.pem");
    let p256: &[u8] = include_bytes!("../../../tests/keys/p256.pub.pem");
    let ed25519: &[u8] = include_bytes!("../../../tests/keys/ed25519.pub.pem");
    let (rs256, ps256, es256, eddsa) = (
        include_str!("../../../tests/keys/rs256.jwt").trim(),
        include_str!("../../../tests/keys/ps256.jwt").trim(),
        include_str!("../../../tests/keys/es256.jwt").trim(),
        include_str!("../../../tests/keys/eddsa.jwt").trim(),
    );
    for (key, good) in [
        (rsa, [rs256, ps256].as_slice()),
        (pkcs1, &[rs256, ps256]),
        (p256, &[es256]),
        (ed25519, &[eddsa]),
    ] {
        let verifier = Verifier::new(Key::parse(key).expect("a key"), None, None);
        for token in [rs256, ps256, es256, eddsa] {
            if good.contains(&token) {
                let grant = verifier.grant(token.as_bytes()).expect("good");
                assert_eq!((&*grant.user, grant.covers_named("7")), ("ann", true));
                assert!(!grant.covers_named("8"));
            } else {
                refused(&verifier, token);
            }
        }
        refused(&verifier, &token(&claims(&json!({}))));
    }
}
