//! The OpenSSH programs as clients.

use std::time::Duration;

use dropgate_gateway::ssh::observer::SessionFact;
use dropgate_gateway::ssh::{Credential, EndReason};
use tokio::io::AsyncWriteExt as _;

use crate::engines::Behaviour;
use crate::server::{PASSWORD, PATIENCE, Server};

async fn run(command: &mut tokio::process::Command, input: &[u8]) -> std::process::Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeding = async move {
        // The program may end early; what it says then is what the test looks at.
        let _ = stdin.write_all(input).await;
    };
    let (output, ()) =
        tokio::time::timeout(PATIENCE * 2, async { tokio::join!(child.wait_with_output(), feeding) })
            .await
            .expect("the client ends");
    output.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_login_reaches_the_engine_and_ends_with_status_zero() {
    let server = Server::start(Behaviour::Echo).await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    let input: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let output = run(server.openssh("ssh", Some(&key)).args(["-s", "bob@127.0.0.1", "sftp"]), &input).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == input, "echo of {} bytes came back as {}", input.len(), output.stdout.len());
    let session = server
        .fact(|fact| match fact {
            SessionFact::LoginAccepted { session, .. } => Some(session.clone()),
            _ => None,
        })
        .await;
    assert!(session.client_software.starts_with("SSH-2.0-OpenSSH_"), "{session:?}");
    assert!(
        matches!(&session.credential, Credential::PublicKey { fingerprint } if fingerprint.starts_with("SHA256:"))
    );
    let algorithms = session.algorithms.clone().unwrap();
    assert_eq!(algorithms.host_key, "ssh-ed25519");
    assert!(algorithms.kex.contains("25519"), "{algorithms:?}");
    assert_eq!(*server.engines.ends.lock().unwrap(), [EndReason::Eof]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_login_and_wrong_passwords() {
    let server = Server::start(Behaviour::Echo).await;
    let mut good = server.openssh("ssh", None);
    server.with_password(&mut good, PASSWORD);
    let output = run(good.args(["-s", "alice@127.0.0.1", "sftp"]), b"hello").await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"hello");

    let mut bad = server.openssh("ssh", None);
    server.with_password(&mut bad, "wrong");
    let output = run(bad.args(["-s", "alice@127.0.0.1", "sftp"]), b"").await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(255), "{said}");
    assert!(said.contains("too many failed logins") || said.contains("Permission denied"), "{said}");
    let refused =
        server.facts().iter().filter(|fact| matches!(fact, SessionFact::LoginRefused { .. })).count();
    assert_eq!(refused, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_user_key_logs_in() {
    let server = Server::start(Behaviour::Echo).await;
    for arguments in [
        &["-t", "rsa", "-b", "2048"][..],
        &["-t", "rsa", "-b", "3072"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "ed25519"],
    ] {
        let key = server.user_key("bob", arguments, |_| {}).await;
        let output =
            run(server.openssh("ssh", Some(&key)).args(["-s", "bob@127.0.0.1", "sftp"]), b"hi").await;
        assert_eq!(output.stdout, b"hi", "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let short = server.user_key("bob", &["-t", "rsa", "-b", "1024"], |_| {}).await;
    let output = run(
        server.openssh("ssh", Some(&short)).args([
            "-o",
            "RequiredRSASize=1024",
            "-s",
            "bob@127.0.0.1",
            "sftp",
        ]),
        b"",
    )
    .await;
    assert_eq!(output.status.code(), Some(255));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_offered_algorithm_works_and_is_recorded() {
    let server = Server::start(Behaviour::Echo).await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    let mut expected = Vec::new();
    for (cipher, mac, kex) in [
        ("aes128-gcm@openssh.com", None, "curve25519-sha256"),
        ("aes256-gcm@openssh.com", None, "curve25519-sha256@libssh.org"),
        ("chacha20-poly1305@openssh.com", None, "diffie-hellman-group16-sha512"),
        ("aes128-ctr", Some("hmac-sha2-256"), "curve25519-sha256"),
        ("aes192-ctr", Some("hmac-sha2-512"), "curve25519-sha256"),
        ("aes256-ctr", Some("hmac-sha2-512-etm@openssh.com"), "curve25519-sha256"),
        ("aes256-ctr", Some("hmac-sha2-256-etm@openssh.com"), "curve25519-sha256"),
    ] {
        let mut ssh = server.openssh("ssh", Some(&key));
        ssh.arg("-c").arg(cipher).arg("-o").arg(format!("KexAlgorithms={kex}"));
        if let Some(mac) = mac {
            ssh.arg("-m").arg(mac);
        }
        let output = run(ssh.args(["-s", "bob@127.0.0.1", "sftp"]), &[9; 100_000]).await;
        assert_eq!(output.stdout.len(), 100_000, "{cipher}: {}", String::from_utf8_lossy(&output.stderr));
        expected.push((cipher.to_owned(), mac.unwrap_or("implicit").to_owned(), kex.to_owned()));
    }
    let recorded: Vec<_> = server
        .facts()
        .iter()
        .filter_map(|fact| match fact {
            SessionFact::LoginAccepted { session, .. } => session.algorithms.clone(),
            _ => None,
        })
        .map(|algorithms| (algorithms.cipher, algorithms.mac, algorithms.kex))
        .collect();
    assert_eq!(recorded, expected);
    for refused in ["KexAlgorithms=diffie-hellman-group14-sha1", "MACs=hmac-sha1", "Ciphers=aes128-cbc"] {
        let mut ssh = server.openssh("ssh", Some(&key));
        if refused.starts_with("MACs") {
            ssh.args(["-c", "aes128-ctr"]);
        }
        let output = run(ssh.arg("-o").arg(refused).args(["-s", "bob@127.0.0.1", "sftp"]), b"").await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("no matching"), "{refused}: {said}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rekeys_often_against_a_slow_store_without_a_hang() {
    let server = Server::start_with(Behaviour::SftpSink(Duration::from_millis(1)), |config| {
        config.ssh.rekey_bytes = 1 << 20;
    })
    .await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    let file = server.directory.path().join("big");
    std::fs::write(&file, vec![5; 48 << 20]).unwrap();
    for large_requests in [false, true] {
        let mut sftp = server.openssh("sftp", Some(&key));
        if large_requests {
            sftp.args(["-B", "261120"]);
        }
        // The client asks for new keys, too.
        sftp.args(["-o", "RekeyLimit=1M", "-b", "-", "bob@127.0.0.1"]);
        let script = format!("put {} /big\n", file.display());
        let output = run(&mut sftp, script.as_bytes()).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(server.engines.fed.load(std::sync::atomic::Ordering::SeqCst) > 96 << 20);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_but_sftp_is_refused() {
    let server = Server::start(Behaviour::Echo).await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    for (arguments, complaint) in [
        (&["bob@127.0.0.1", "true"][..], "exec request failed"),
        (&["bob@127.0.0.1"], "shell request failed"),
        (&["-s", "bob@127.0.0.1", "netconf"], "subsystem request failed"),
        (&["-W", "127.0.0.1:22", "bob@127.0.0.1"], "administratively prohibited"),
        (
            &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22", "bob@127.0.0.1"],
            "remote port forwarding failed",
        ),
    ] {
        let output = run(server.openssh("ssh", Some(&key)).args(arguments), b"").await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(complaint), "{arguments:?}: {said}");
    }
    assert_eq!(server.engines.opened.load(std::sync::atomic::Ordering::SeqCst), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_host_keys_are_served_and_rsa_signs_with_sha2() {
    use dropgate_gateway::ssh::hostkey::{HostKey, HostKeyKind, HostKeys};
    let rsa = HostKey::generate(HostKeyKind::Rsa4096).unwrap();
    let line = |port| rsa.known_hosts_line("127.0.0.1", port);
    let server =
        Server::start_with_keys(Behaviour::Echo, HostKeys::from_keys(vec![rsa.clone()]), |_| {}).await;
    let key = server.user_key("bob", &["-t", "ed25519"], |_| {}).await;
    for algorithm in ["rsa-sha2-512", "rsa-sha2-256"] {
        let mut ssh = server.openssh("ssh", Some(&key));
        std::fs::write(server.directory.path().join("known_hosts"), line(server.address.port()) + "\n")
            .unwrap();
        ssh.arg("-o").arg(format!("HostKeyAlgorithms={algorithm}"));
        let output = run(ssh.args(["-s", "bob@127.0.0.1", "sftp"]), b"hi").await;
        assert_eq!(output.stdout, b"hi", "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut sha1 = server.openssh("ssh", Some(&key));
    let output =
        run(sha1.args(["-o", "HostKeyAlgorithms=ssh-rsa", "-s", "bob@127.0.0.1", "sftp"]), b"").await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("no matching host key type"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn legacy_serves_sha1_clients_and_modern_does_not() {
    use dropgate_gateway::ssh::AlgorithmProfile;
    use dropgate_gateway::ssh::hostkey::{HostKey, HostKeyKind, HostKeys};
    let rsa = HostKey::generate(HostKeyKind::Rsa4096).unwrap();
    for (profile, welcome) in [(AlgorithmProfile::Legacy, true), (AlgorithmProfile::Modern, false)] {
        let server =
            Server::start_with_keys(Behaviour::Echo, HostKeys::from_keys(vec![rsa.clone()]), |config| {
                config.ssh.algorithms = profile;
            })
            .await;
        let key = server.user_key("bob", &["-t", "rsa", "-b", "2048"], |_| {}).await;
        let sha1 = [
            "KexAlgorithms=diffie-hellman-group14-sha1",
            "HostKeyAlgorithms=ssh-rsa",
            "PubkeyAcceptedAlgorithms=ssh-rsa",
        ];
        // All of it on a legacy listener; one at a time is enough to be refused elsewhere.
        let all = sha1.map(|option| ("-o", option)).to_vec();
        let sets = if welcome { vec![all] } else { sha1.map(|option| vec![("-o", option)]).to_vec() };
        for options in sets {
            let mut ssh = server.openssh("ssh", Some(&key));
            let line = rsa.known_hosts_line("127.0.0.1", server.address.port()) + "\n";
            std::fs::write(server.directory.path().join("known_hosts"), line).unwrap();
            for (flag, option) in &options {
                ssh.args([flag, option]);
            }
            if welcome {
                ssh.args(["-c", "aes128-ctr", "-m", "hmac-sha1"]);
            }
            let output = run(ssh.args(["-s", "bob@127.0.0.1", "sftp"]), b"hi").await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.stdout == b"hi", welcome, "{profile:?} {options:?}: {said}");
            assert_eq!(output.status.success(), welcome, "{profile:?} {options:?}: {said}");
        }
        server.stop().await;
    }
}
