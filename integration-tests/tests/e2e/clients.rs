//! Every client through every case, and each against its row of `docs/clients.md`.

use anyhow::{Result, ensure};
use dropgate_integration_tests::matrix::{
    ACCOUNT, Client, Stand, Table, Words,
    clients::{Curl, Desktop, Foreign, Lftp, Pscp, Psftp, Rclone, Replayed, Scp, Sftp},
};

/// Clients in the order of the document: those of every run, and those of `make test-full`.
const ORDER: &[&[&str]] = &[
    &[
        "OpenSSH sftp",
        "OpenSSH scp",
        "PuTTY psftp",
        "lftp",
        "curl",
        "rclone",
        "paramiko",
        "asyncssh",
        "ssh2 fastPut",
        "WinSCP (replayed)",
        "FileZilla (replayed)",
        "Cyberduck (replayed)",
    ],
    &[
        "PuTTY pscp",
        "sshfs",
        "ssh2-python",
        "ssh2-sftp-client",
        "JSch",
        "sshj",
        "Apache MINA SSHD",
        "Go pkg/sftp",
    ],
];

/// Tries a client, and compares what came of it with the document.
async fn hold<C: Client>(stand: &Stand, client: &C) -> Result<()> {
    Table::new(ORDER).hold(&stand.row(client).await?)
}

#[test]
fn the_document_has_a_row_for_every_client() -> Result<()> {
    Table::new(ORDER).is_complete()
}

#[tokio::test]
async fn openssh_sftp_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Sftp::new(&stand.gate, ACCOUNT)?).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn openssh_scp_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Scp::new(&stand.gate, ACCOUNT)?).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn psftp_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Psftp::new(&stand.desk)?).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn lftp_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Lftp::new(&stand.desk)).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn curl_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Curl::new(&stand.desk)).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn rclone_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Rclone::new(&stand.desk)).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn rclone_copies_by_checksum_and_in_place() -> Result<()> {
    let stand = Stand::open().await?;
    let client = Rclone::new(&stand.desk);
    std::fs::write(stand.desk.local("one"), b"once more")?;
    let source = stand.desk.local("one").display().to_string();
    for option in ["--checksum", "--inplace"] {
        let done = client.run(&["copyto", option, "--ignore-times", &source, "gate:upload/one"]).await?;
        ensure!(done.status.success(), "{option}: {}", done.all());
        stand.gate.settled().await?;
    }
    ensure!(stand.gate.event_about("upload.received", "/upload/one", 2).await?.len() == 2);
    let listed = client.run(&["check", "--size-only", "--one-way", &source, "gate:sent"]).await?;
    ensure!(listed.all().contains("0 differences"), "{}", listed.all());
    stand.gate.finish().await
}

#[tokio::test]
async fn paramiko_through_every_case_and_with_texts_to_show() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Foreign::python(&stand.desk, "paramiko", "with_paramiko.py")?).await?;
    let texts = Foreign::python(&stand.desk, "paramiko", "texts_with_paramiko.py")?.run(&[]).await?;
    ensure!(texts.status.success(), "{}", texts.all());
    stand.gate.finish().await
}

#[tokio::test]
async fn asyncssh_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Foreign::python(&stand.desk, "asyncssh", "with_asyncssh.py")?).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn ssh2_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Foreign::node(&stand.desk, "ssh2 fastPut", "with-ssh2.js")?).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn winscp_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Replayed { gate: &stand.gate, account: ACCOUNT, desktop: Desktop::WinScp }).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn filezilla_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Replayed { gate: &stand.gate, account: ACCOUNT, desktop: Desktop::FileZilla }).await?;
    stand.gate.finish().await
}

#[tokio::test]
async fn cyberduck_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Replayed { gate: &stand.gate, account: ACCOUNT, desktop: Desktop::Cyberduck }).await?;
    stand.gate.finish().await
}

#[tokio::test]
#[ignore = "one of many clients: make test-full"]
async fn pscp_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Pscp::new(&stand.desk)?).await?;
    stand.gate.finish().await
}

#[tokio::test]
#[ignore = "one of many clients: make test-full"]
async fn sshfs_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Foreign::sshfs(&stand.desk)).await?;
    stand.gate.finish().await
}

#[tokio::test]
#[ignore = "one of many clients: make test-full"]
async fn ssh2_python_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    let client = Foreign::python(&stand.desk, "ssh2-python", "with_ssh2.py")?;
    hold(&stand, &Foreign { words: Words::Own("status 3"), ..client }).await?;
    stand.gate.finish().await
}

#[tokio::test]
#[ignore = "one of many clients: make test-full"]
async fn ssh2_sftp_client_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    let client = Foreign::node(&stand.desk, "ssh2-sftp-client", "with-ssh2-sftp-client.js")?;
    let cannot = &[("sync", "has no such mode"), ("put-with-times", "does not send times")];
    hold(&stand, &Foreign { cannot, ..client }).await?;
    stand.gate.finish().await
}

#[tokio::test]
#[ignore = "one of many clients: make test-full"]
async fn jsch_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Foreign::java(&stand.desk, "JSch", "jsch")?).await?;
    stand.gate.finish().await
}

#[tokio::test]
#[ignore = "one of many clients: make test-full"]
async fn sshj_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Foreign::java(&stand.desk, "sshj", "sshj")?).await?;
    stand.gate.finish().await
}

#[tokio::test]
#[ignore = "one of many clients: make test-full"]
async fn mina_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Foreign::java(&stand.desk, "Apache MINA SSHD", "mina")?).await?;
    stand.gate.finish().await
}

#[tokio::test]
#[ignore = "one of many clients: make test-full"]
async fn go_through_every_case() -> Result<()> {
    let stand = Stand::open().await?;
    hold(&stand, &Foreign::go(&stand.desk, "Go pkg/sftp")?).await?;
    stand.gate.finish().await
}
