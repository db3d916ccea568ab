use super::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEZPgk45udX0U8wwnhJ3a/Tf6N4LYM1JrcY4WlS9dVFT";
const ED25519_FINGERPRINT: &str = "SHA256:RZYe4fblfxoSgriodvGiZcvhD+g0llsaNAH9/zvXnuI";
const P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBO8FGgfJTkUHO/dxjzuY9T3WDGQ3wD4N7TzKxUHxgT1O9dVa7+JPS8es8JAfcj+LM6yFe0UBF2GN+rqPmBE2GX0=";
const P521: &str = "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBABKXXYgB/z5wuNh4eVAIqqLoWBacyKM3G2R4+YoS4tDhvgJhmJ44ij2ilP/jkxOBryDyzty9YJCYp1jNZ70yPvVTQF0KnoqdT3ZvXdvmzGimlUiXvnNcIrH0CGHL8wtHrHXIOjZEYEekNyu+pzALy3bwx4m25gszRdv2w1gmvtyRW7w1g==";
const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDT/mleTCXMuvZXp7aJ5iQEaRSvDyQZMTh3XjRmSniR3vqfOk064DBzB9KBBfjMEZRR6hDm5WTCITe81qqac7HLsj3EERuV9ircKzK4KSukCuSsyu3E+0DlaRQSuy9iGVMnbi4PgdWgNZvubQhW9BWmuEAzL17SbcdVQ3xdIG2hIw==";
const RSA_2048: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC9NxruBb77VyVYbmxR4M6BQn6EqIU/6lbiEtfWPUtFpELk2Nc/qRwpvB4I7a5E+Jlg12IrdSBekriv3BRB5vHvuWV354aUcJJM1ljz7tAcSw/HX/UFujd/LQJAoK+u3iW5Q/AH87+fH2PQ+8VQBmBp8aDzYSYzh+5uqGhDM1WqE+uKL+2hnr9MtR86EdHrllMRlHC1nIQKxkW4L28/WDXBhoPDCnzo+yFrDQpEu+s+Dj0FcHpHcISEhEuhHWgcNiwsWzEa54fJqKSlJE/f/MP7WULGE8uIajTRLjDDfCvtKzTbxMkvZmTymAFWlrKySA1EeXwftfNWgxfuFawF6CiN";

fn parse(line: &str) -> Result<PublicKey, KeyLineError> {
    parse_line(line, Timestamp::from_millis(0))
}

fn utc(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn keys_of_ssh_keygen_are_taken_with_its_fingerprints() {
    for (line, fingerprint) in [
        (ED25519, ED25519_FINGERPRINT),
        (P256, "SHA256:I31GKWLeUu9/aDVtB3npaUiAP/iQYOCfMLkbxSwToTs"),
        (P521, "SHA256:agbRi7nQgKRPNhPTSLVFbogzoxkhdiU5gPZTEd0QykY"),
        (RSA_2048, "SHA256:eidcAuahY0X9Jzj91aFvZ9S8oofOKsMvDJG9NASDmCI"),
    ] {
        let key = parse(&format!("{line} a comment\r\n")).unwrap();
        assert_eq!(key.fingerprint, fingerprint);
        assert_eq!(key.key, line);
        assert_eq!(key.comment, "a comment");
        assert_eq!((key.from.len(), key.expires_at), (0, None));
        assert_eq!(parse(line).unwrap().comment, "");
    }
}

#[test]
fn restrictions_are_kept() {
    let key = parse(&format!(
        "restrict,from=\"192.0.2.0/24,2001:db8::1\",no-pty,expiry-time=\"20300102Z\" {ED25519} me at home"
    ))
    .unwrap();
    assert_eq!(key.fingerprint, ED25519_FINGERPRINT);
    assert_eq!(key.comment, "me at home");
    assert_eq!(key.from, ["192.0.2.0/24", "2001:db8::1/128"]);
    assert_eq!(key.expires_at, Some(utc("2030-01-02T00:00:00Z")));
    let time = |text| parse(&format!("expiry-time={text} {ED25519}")).unwrap().expires_at.unwrap();
    assert_eq!(time("203001021530Z"), utc("2030-01-02T15:30:00Z"));
    assert_eq!(time("20300102153059Z"), utc("2030-01-02T15:30:59Z"));
    let local = civil::date(2030, 1, 2).at(15, 30, 0, 0).to_zoned(TimeZone::system()).unwrap();
    assert_eq!(time("203001021530").millis(), local.timestamp().as_millisecond());
}

#[test]
fn what_can_not_be_honoured_is_refused_with_the_reason() {
    for (line, expected) in [
        (String::new(), "no public key"),
        ("hello".to_owned(), "no public key"),
        ("ssh-ed25519 AAAA".to_owned(), "no public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), "private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519".to_owned(), "private key"),
        (RSA_1024.to_owned(), "1024 bits and at least 2048"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP".to_owned(), "keys of type ssh-dss are not accepted"),
        ("sk-ssh-ed25519@openssh.com AAAA".to_owned(), "are not accepted"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA".to_owned(), "certificates are not accepted"),
        (format!("cert-authority {ED25519}"), "certificates are not accepted"),
        (format!("command=\"sh -c 'x y'\" {ED25519}"), "the option command is not supported"),
        (
            format!("environment=\"A=\\\"b c\\\"\",no-pty {ED25519}"),
            "the option environment is not supported",
        ),
        (format!("from=\"*.example.com\" {ED25519}"), "host names and patterns are not supported"),
        (format!("from=\"!192.0.2.1,192.0.2.0/24\" {ED25519}"), "exceptions with !"),
        (format!("from {ED25519}"), "the option from is not supported"),
        (format!("expiry-time=\"soon\" {ED25519}"), "is not a time"),
        (format!("expiry-time=\"20301301\" {ED25519}"), "is not a time"),
        ("x".repeat(20_000), "no public key"),
    ] {
        let error = parse(&line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn a_file_may_hold_several_keys_and_its_mistakes_have_line_numbers() {
    let text = format!("# partners\n\n{ED25519} one\n{RSA_2048}\n");
    assert_eq!(parse_file(&text, Timestamp::now()).unwrap().len(), 2);
    let (line, error) = parse_file(&format!("{text}{RSA_1024}\n"), Timestamp::now()).unwrap_err();
    assert_eq!((line, error), (5, KeyLineError::ShortRsa(1024)));
    assert_eq!(parse_file("# nothing\n", Timestamp::now()).unwrap_err(), (1, KeyLineError::NotAKey));
}

#[test]
fn a_key_counts_until_it_expires_and_from_where_it_may() {
    let key = parse(&format!("from=\"192.0.2.0/24\",expiry-time=20300102Z {ED25519}")).unwrap();
    let (inside, outside) = ("192.0.2.9".parse().unwrap(), "203.0.113.1".parse().unwrap());
    let (before, after) = (utc("2030-01-01T23:59:59Z"), utc("2030-01-02T00:00:00Z"));
    assert_eq!(permits(&key, inside, before), Ok(()));
    assert_eq!(permits(&key, outside, before), Err(KeyRefusal::Source(outside)));
    assert_eq!(permits(&key, inside, after), Err(KeyRefusal::Expired(after)));
    assert_eq!(permits(&parse(ED25519).unwrap(), outside, after), Ok(()));
    let broken = PublicKey { from: vec!["everywhere".to_owned()], ..parse(ED25519).unwrap() };
    assert!(matches!(permits(&broken, inside, before), Err(KeyRefusal::Unreadable(_))));
}
