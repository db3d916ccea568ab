use crate::client::{CREAT, Gate, Got, WRITE, string};
use dropgate_schemas::{
    audit::{Action, Actor, AuditEntry, AuditResult},
    change::{Change, Durability, Subject},
    digest::Sha256,
    inbox::InboxEntry,
    time::Timestamp,
};

/// Registers or removes an entry, as the command does.
async fn write(gate: &Gate, account: &str, name: &str, revision: u64, removed: bool) -> u64 {
    let entry = InboxEntry {
        account: account.parse().unwrap(),
        path: format!("/inbox/{name}").parse().unwrap(),
        revision,
        size: 42,
        sha256: (name != "bare").then(|| Sha256::of(b"told")),
        registered_at: Timestamp::from_millis(1_600_000_000_000),
        removed_at: removed.then(Timestamp::now),
    };
    let audit = AuditEntry::new(Action::InboxAdd, Actor::Operator { id: "op".into() }, AuditResult::Ok);
    let change = Change {
        subject: Subject::Inbox(entry),
        audit: vec![audit],
        outbox: vec![],
        durability: Durability::Durable,
    };
    gate.backends.state.apply(change).await.unwrap()
}

#[tokio::test]
async fn what_was_registered_is_seen_and_can_not_be_touched() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    assert!(client.list("/inbox").await.is_empty());
    write(&gate, "acme", "report.csv", 0, false).await;
    write(&gate, "acme", "bare", 0, false).await;
    write(&gate, "other", "secret.csv", 0, false).await;
    let lines = client.long_list("/inbox").await;
    let names: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [".", "..", "bare", "report.csv"]);
    assert!(lines[3].1.starts_with("-r--r--r-- 1 acme     inbox "), "{}", lines[3].1);
    let stat = client.stat("/inbox/report.csv").await;
    assert_eq!(stat, Got::Attrs { size: 42, mode: 0o100_444, mtime: 1_600_000_000 });
    client.stat("/inbox/secret.csv").await.refused(2);
    client.stat("/inbox/report.csv/x").await.refused(2);
    let check = |name: &[u8]| [string(name), string(b"sha256"), vec![0; 20]].concat();
    let told = client.extended("check-file-name", &check(b"/inbox/report.csv")).await;
    assert_eq!(told, Got::Extended([string(b"sha256"), Sha256::of(b"told").0.to_vec()].concat()));
    let untold = client.extended("check-file-name", &check(b"/inbox/bare")).await;
    assert!(untold.refused(4).contains("without a digest"));

    client.open("/inbox/report.csv", 1).await.refused(3);
    client.open("/inbox/report.csv", WRITE | CREAT).await.refused(3);
    client.open("/inbox/new", WRITE | CREAT).await.refused(3);
    client.remove("/inbox/report.csv").await.refused(3);
    client.rename("/inbox/report.csv", "/inbox/x").await.refused(3);
    client.mkdir("/inbox/report.csv").await.refused(3);
    client.rmdir("/inbox/report.csv").await.refused(3);
    let mode = [string(b"/inbox/report.csv"), vec![0, 0, 0, 4], 0o600_u32.to_be_bytes().to_vec()].concat();
    assert!(client.ask(9, &mode).await.refused(3).contains("can't be changed"));

    assert_eq!(write(&gate, "acme", "report.csv", 1, true).await, 2);
    assert_eq!(client.list("/inbox").await, ["bare"]);
    client.stat("/inbox/report.csv").await.refused(2);
}
