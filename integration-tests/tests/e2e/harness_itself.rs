//! The tools of these tests, tried on a server whose behaviour is known: OpenSSH's own.

use anyhow::{Result, ensure};
use dropgate_integration_tests::{
    harness::{
        openssh::OpenSsh,
        payload,
        sshd::{Sshd, Subsystem},
        wire::Wire,
    },
    raw::{Attrs, Connection, Credential, Login, Request, Transport, frame, reply},
};

fn login(sshd: &Sshd) -> Login {
    Login { user: sshd.user.clone(), with: Credential::Key(sshd.key.clone()) }
}

#[tokio::test]
async fn the_raw_client_and_the_drivers_work_with_openssh() -> Result<()> {
    let sshd = Sshd::start(&Subsystem::SftpServer, "").await?;
    let dir = sshd.directory("root")?;
    let connection = Connection::open(sshd.address, &login(&sshd), &Transport::default()).await?;
    let mut raw = connection.sftp().await?;
    let (version, extensions) = raw.init(3).await?;
    assert_eq!(version, 3);
    assert!(extensions.iter().any(|(name, _)| name == "posix-rename@openssh.com"));

    let data = payload::bytes(1, 300_000);
    let path = dir.join("a").display().to_string();
    raw.put(&path, &data).await?;
    assert_eq!(std::fs::read(&path)?, data);
    let stat = raw.call(Request::Stat { path: path.as_bytes() }).await?.attrs()?;
    assert_eq!(stat.size, Some(300_000));
    assert_eq!(raw.names(&dir.display().to_string()).await?, ["a"]);
    raw.call(Request::Stat { path: b"/nowhere" }).await?.refused(reply::NO_SUCH_FILE)?;

    let client = OpenSsh::at_sshd(&sshd)?;
    let local = client.local("b");
    let digest = payload::write_file(&local, 2, 1_000_000)?;
    client.sftp(&format!("put {} {}\n", local.display(), dir.join("b").display())).await?;
    assert_eq!(payload::digest_file(&dir.join("b"))?, (1_000_000, digest.clone()));
    client.scp(&[], &local, &dir.join("c").display().to_string()).await?;
    assert_eq!(payload::digest_file(&dir.join("c"))?.1, digest);
    let refused = client.try_sftp("get /nowhere\n").await?;
    assert_eq!(refused.code(), 1, "{}", refused.all());
    Ok(())
}

#[tokio::test]
async fn a_wire_breaks_where_it_should() -> Result<()> {
    let sshd = Sshd::start(&Subsystem::SftpServer, "").await?;
    let dir = sshd.directory("root")?;
    let wire = Wire::to(sshd.address, 500_000).await?;
    let connection = Connection::open(wire.address, &login(&sshd), &Transport::default()).await?;
    let mut raw = connection.sftp().await?;
    raw.init(3).await?;
    let path = dir.join("cut").display().to_string();
    assert!(raw.put(&path, &payload::bytes(3, 2_000_000)).await.is_err());
    ensure!(wire.carried() == 500_000, "{} bytes", wire.carried());
    let size = std::fs::metadata(&path)?.len();
    ensure!(size < 500_000, "{size}");
    Ok(())
}

#[tokio::test]
async fn a_shut_valve_holds_replies_back_and_a_rekey_goes_through() -> Result<()> {
    let sshd = Sshd::start(&Subsystem::Internal(String::new()), "").await?;
    let dir = sshd.directory("root")?;
    let transport = Transport { rekey_after: 1 << 20, ..Transport::default() };
    let connection = Connection::open(sshd.address, &login(&sshd), &transport).await?;
    let mut raw = connection.sftp().await?;
    raw.init(3).await?;
    raw.put(&dir.join("rekeyed").display().to_string(), &payload::bytes(4, 5_000_000)).await?;

    connection.valve.shut();
    let id = raw.send(Request::Realpath { path: b"." }).await?;
    assert!(raw.reply_within(std::time::Duration::from_millis(300)).await?.is_none());
    connection.valve.open();
    assert_eq!(raw.reply_to(id).await?.names()?.len(), 1);

    let flags = frame::WRITE | frame::CREAT | frame::EXCL;
    let path = dir.join("half").display().to_string();
    let handle = raw.open(&path, flags, Attrs::none()).await?;
    raw.call(Request::Write { handle: &handle, offset: 0, data: b"x" }).await?.ok()?;
    connection.valve.half_close();
    raw.closed_by_server().await?;
    Ok(())
}
