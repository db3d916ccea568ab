//! What is not taken, and that it says so.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    checker::{Ledger, verify},
    harness::{Gate, Setup, openssh::OpenSsh, until::until},
    raw::{Attrs, Connection, Credential, Login, Request, Transport, frame, reply},
};
use std::time::Duration;

const W_C_T: u32 = frame::WRITE | frame::CREAT | frame::TRUNC;

#[tokio::test]
async fn names_that_could_harm_somebody_are_refused_and_leave_nothing() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    let long = "x".repeat(256);
    let deep = "d/".repeat(40);
    let wide = format!("{0}/{0}/{0}/{0}/{0}", "w".repeat(250));
    let bad: Vec<Vec<u8>> = vec![
        b"nul\0byte".to_vec(),
        b"line\nfeed".to_vec(),
        b"escape\x1b[2J".to_vec(),
        b"del\x7f".to_vec(),
        "c1\u{85}".into(),
        "line\u{2028}separator".into(),
        "right\u{202e}gnp.exe".into(),
        "isolate\u{2066}x".into(),
        b"back\\slash".to_vec(),
        b" leading".to_vec(),
        b"trailing ".to_vec(),
        b"dot.".to_vec(),
        b"not\xffutf8".to_vec(),
        b"overlong\xc0\xaf".to_vec(),
        long.into_bytes(),
        deep.into_bytes(),
        wide.into_bytes(),
    ];
    for name in &bad {
        let path = [b"/upload/", name.as_slice()].concat();
        let shown = String::from_utf8_lossy(&path).into_owned();
        for request in [
            Request::Open { path: &path, flags: W_C_T, attrs: Attrs::none() },
            Request::Mkdir { path: &path },
            Request::Rename { from: b"/upload/x", to: &path },
        ] {
            let answer = raw.call(request).await?;
            let (code, text) = answer.status()?;
            ensure!(
                matches!(code, reply::FAILURE | reply::PERMISSION_DENIED | reply::NO_SUCH_FILE),
                "{shown}: {code} {text}"
            );
            ensure!(!text.is_empty() && !text.contains('\x1b') && !text.contains('\n'), "{shown}: {text:?}");
        }
    }
    ensure!(raw.names("/upload").await?.is_empty());
    ensure!(gate.uploads().await?.iter().all(|u| u.state == "aborted"), "{:?}", gate.uploads().await?);
    gate.finish().await
}

#[tokio::test]
async fn nothing_is_written_outside_upload_and_no_path_leaves_the_tree() -> Result<()> {
    let gate = Gate::start(Setup::default().accounts(&["acme", "other"])).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    for path in [
        "/x",
        "/upload",
        "/inbox/x",
        "/sent/x",
        "/failed/x",
        "/etc/passwd",
        "/upload/../x",
        "/upload/../../../etc/x",
        "x",
    ] {
        let answer =
            raw.call(Request::Open { path: path.as_bytes(), flags: W_C_T, attrs: Attrs::none() }).await?;
        let (code, text) = answer.status()?;
        ensure!(matches!(code, reply::PERMISSION_DENIED | reply::FAILURE), "OPEN {path}: {code} {text}");
        ensure!(text.contains("[ref "), "OPEN {path} has no reference: {text}");
    }
    // `..` stops at the root, and inside /upload it is only a name for /upload.
    raw.put("/../../upload/./sub/../plain", b"data").await?;
    gate.settled().await?;
    assert_eq!(raw.names("/sent").await?, ["plain"]);
    let real = raw.call(Request::Realpath { path: b"../../upload/./a/../b" }).await?;
    assert_eq!(
        real.names()?.first().map(dropgate_integration_tests::raw::Entry::text).as_deref(),
        Some("/upload/b")
    );

    // Another account sees nothing of it.
    let (_other, mut other) = gate.raw("other").await?;
    assert!(other.names("/sent").await?.is_empty());
    other.call(Request::Stat { path: b"/sent/plain" }).await?.refused(reply::NO_SUCH_FILE)?;
    other.call(Request::Stat { path: b"/upload/plain" }).await?.refused(reply::NO_SUCH_FILE)?;
    other.call(Request::Remove { path: b"/sent/plain" }).await?.refused(reply::NO_SUCH_FILE)?;
    gate.finish().await
}

#[tokio::test]
async fn get_is_refused_in_every_way() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let (_connection, mut raw) = gate.raw("acme").await?;
    raw.put("/upload/mine", b"my own bytes").await?;
    gate.settled().await?;
    for path in ["/sent/mine", "/upload/mine", "/failed/x", "/upload/new"] {
        let answer = raw
            .call(Request::Open { path: path.as_bytes(), flags: frame::READ, attrs: Attrs::none() })
            .await?;
        let text = answer.refused(reply::PERMISSION_DENIED)?;
        ensure!(text.contains("[ref "), "{text}");
    }
    let handle = raw.open("/upload/rw", frame::READ | W_C_T, Attrs::none()).await?;
    raw.call(Request::Write { handle: &handle, offset: 0, data: b"abc" }).await?.ok()?;
    raw.call(Request::Read { handle: &handle, offset: 0, length: 3 })
        .await?
        .refused(reply::PERMISSION_DENIED)?;
    raw.call(Request::Close { handle: &handle }).await?.ok()?;

    let client = OpenSsh::new(&gate, "acme")?;
    let outcome = client.try_sftp(&format!("get /sent/mine {}\n", client.local("got").display())).await?;
    ensure!(outcome.code() == 1 && !client.local("got").exists(), "{}", outcome.all());
    gate.settled().await?;
    gate.finish().await
}

#[tokio::test]
async fn wrong_password_disabled_account_and_removed_account_do_not_get_in() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let server = gate.sftp()?;
    let wrong = |user: &str| Login { user: user.to_owned(), with: Credential::Password("wrong".to_owned()) };
    for user in ["acme", "nobody"] {
        ensure!(Connection::open(server, &wrong(user), &Transport::default()).await.is_err());
    }
    let client = OpenSsh::with_password(&gate, "acme", Some("wrong"))?;
    let outcome = client.try_sftp("ls\n").await?;
    ensure!(outcome.code() == 255, "{}", outcome.all());

    // Three password tries on a connection, then it is over.
    let mut connection = Connection::greet(server, &Transport::default()).await?;
    for _ in 0..3 {
        match connection.authenticate(&wrong("acme")).await {
            Ok(answer) => ensure!(!answer.success()),
            Err(_) => break,
        }
    }
    let fourth = connection.authenticate(&gate.password_login("acme")).await;
    ensure!(!matches!(&fourth, Ok(answer) if answer.success()), "a fourth try was let in: {fourth:?}");

    // Disabling ends live sessions within a second or so and keeps new ones out; enabling lets them in again.
    let (live, mut raw) = gate.raw("acme").await?;
    gate.cli.run(&["account", "disable", "acme"]).await?;
    raw.closed_by_server().await?;
    ensure!(gate.raw("acme").await.is_err());
    ensure!(Connection::open(server, &gate.password_login("acme"), &Transport::default()).await.is_err());
    drop(live);
    gate.cli.run(&["account", "enable", "acme"]).await?;
    until(Duration::from_secs(5), "the account to be let in again", || async {
        gate.raw("acme").await.map(Some)
    })
    .await?;

    let refused = gate.audit(&["--result", "refused"]).await?;
    let logins = refused.iter().filter(|e| e["action"] == "session.login").count();
    ensure!(logins >= 3, "{logins} refused logins on record");
    gate.finish().await
}

#[tokio::test]
async fn account_add_works_while_the_server_runs() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    gate.add_account("late", &[]).await?;
    let (_connection, mut raw) = gate.raw("late").await?;
    raw.put("/upload/x", b"x").await?;
    gate.upload_in("late", "/upload/x", "processed").await?;
    ensure!(gate.delivered("late").join("x").exists());
    let again = gate.cli.try_run(&["account", "add", "late", "--partner", "p"], b"").await?;
    ensure!(again.code() == 1 && again.stderr.contains("late"), "{}", again.all());
    gate.finish().await
}

#[tokio::test]
async fn everything_but_sftp_is_refused_with_a_channel_failure() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let connection = Connection::open(gate.sftp()?, &gate.login("acme"), &Transport::default()).await?;
    for kind in ["exec", "shell", "pty", "env", "agent", "x11", "subsystem"] {
        let mut channel = connection.channel().await?;
        match kind {
            "exec" => channel.exec(true, "id").await?,
            "shell" => channel.request_shell(true).await?,
            "pty" => channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await?,
            "env" => channel.set_env(true, "LD_PRELOAD", "x.so").await?,
            "agent" => channel.agent_forward(true).await?,
            "x11" => channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await?,
            _ => channel.request_subsystem(true, "netconf").await?,
        }
        loop {
            match tokio::time::timeout(Duration::from_secs(20), channel.wait()).await? {
                Some(russh::ChannelMsg::Failure) | None => break,
                Some(russh::ChannelMsg::Success) => anyhow::bail!("{kind} was granted"),
                Some(_) => {}
            }
        }
    }
    // The connection is none the worse for it.
    let mut raw = connection.sftp().await?;
    raw.init(3).await?;
    let ledger = Ledger::in_memory();
    let line = ledger.begin("acme", "/upload/after", b"still here")?;
    raw.put("/upload/after", b"still here").await?;
    ledger.acknowledge(line)?;
    verify(&gate, &ledger).await?;
    gate.finish().await
}
