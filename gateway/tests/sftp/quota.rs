use crate::client::{CREAT, Client, Gate, Got, TRUNC, WRITE, string};
use dropgate_schemas::{account::Quota, upload::UploadState};

const MIB: u64 = 1 << 20;

/// Total and free bytes as `statvfs` tells them.
async fn room(client: &mut Client) -> (u64, u64) {
    let Got::Extended(fields) = client.extended("statvfs@openssh.com", &string(b"/upload")).await else {
        panic!("no answer to statvfs");
    };
    let value = |i: usize| u64::from_be_bytes(fields[i * 8..i * 8 + 8].try_into().unwrap());
    (value(1) * value(2), value(1) * value(4))
}

#[tokio::test]
async fn bytes_of_a_day_are_counted_and_a_file_that_would_go_over_is_refused() {
    let gate = Gate::with(|a| a.quota = Quota { bytes_per_day: Some(MIB), ..Quota::default() }).await;
    let mut client = gate.client().await;
    assert_eq!(room(&mut client).await, (MIB, MIB));
    client.put("/upload/a", &[1; 700_000]).await.ok();
    let (total, free) = room(&mut client).await;
    assert_eq!((total, free / 4096), (MIB, (MIB - 700_000) / 4096));
    // More than is left: refused when it is told, or when it comes.
    let id = client.send_open("/upload/b", WRITE | CREAT | TRUNC, Some(400_000)).await;
    let text = client.reply(id).await.refused(4);
    assert!(text.contains("348576 of this account's 1048576 bytes of today are left"), "{text}");
    let handle = client.open("/upload/b", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, &[2; 200_000]).await.ok();
    let text = client.write(&handle, 200_000, &[2; 200_000]).await.refused(4);
    assert!(text.contains("over quota: 348576 bytes were left"), "{text}");
    client.close(&handle).await.refused(4);
    // An overwrite counts as what it is, another file; what was not accepted does not count.
    client.put("/upload/a", &[3; 348_576]).await.ok();
    assert_eq!(room(&mut client).await, (MIB, 0));
    let text = client.open("/upload/c", WRITE | CREAT | TRUNC).await.refused(4);
    assert!(
        text.contains("0 of this account's 1048576 bytes of today are left; try again after 00:00 UTC"),
        "{text}"
    );
}

#[tokio::test]
async fn files_of_a_day_are_counted() {
    let gate = Gate::with(|a| a.quota = Quota { uploads_per_day: Some(2), ..Quota::default() }).await;
    let mut client = gate.client().await;
    client.put("/upload/a", b"1").await.ok();
    client.put("/upload/b.filepart", b"2").await.ok();
    let text = client.open("/upload/c", WRITE | CREAT | TRUNC).await.refused(4);
    assert!(text.contains("sent its 2 files of today"), "{text}");
    // What is held counts already: it may be written again and renamed.
    client.put("/upload/b.filepart", b"3").await.ok();
    client.rename("/upload/b.filepart", "/upload/b").await.ok();
    client.open("/upload/c", WRITE | CREAT | TRUNC).await.refused(4);
    // A bound on files says nothing of bytes.
    assert!(room(&mut client).await.1 > MIB);
}

#[tokio::test]
async fn all_that_is_kept_counts_for_the_total_deleted_or_not() {
    let quota = Quota { total_bytes: Some(10_000), bytes_per_day: Some(MIB), ..Quota::default() };
    let gate = Gate::with(|a| a.quota = quota).await;
    let mut client = gate.client().await;
    client.put("/upload/a", &[1; 6_000]).await.ok();
    let upload = gate.upload_at("/upload/a", UploadState::Committed).await;
    gate.settle(upload, UploadState::Processed).await;
    client.remove("/sent/a").await.ok();
    assert_eq!(room(&mut client).await, (8192, 0), "of 10000 bytes 4000 are left, not a whole block");
    let text = {
        let id = client.send_open("/upload/b", WRITE | CREAT | TRUNC, Some(4_001)).await;
        client.reply(id).await.refused(4)
    };
    assert!(
        text.contains("4000 of this account's 10000 bytes are left; ask the operator for more"),
        "{text}"
    );
    client.put("/upload/b", &[2; 4_000]).await.ok();
    client.open("/upload/c", WRITE | CREAT | TRUNC).await.refused(4);
}

#[tokio::test]
async fn uploads_at_the_same_time_may_go_over_by_their_own_size() {
    let gate = Gate::with(|a| a.quota = Quota { total_bytes: Some(1_000), ..Quota::default() }).await;
    let mut client = gate.client().await;
    let handles = [
        client.open("/upload/a", WRITE | CREAT).await.handle(),
        client.open("/upload/b", WRITE | CREAT).await.handle(),
    ];
    for handle in &handles {
        client.write(handle, 0, &[1; 1_000]).await.ok();
        client.close(handle).await.ok();
    }
    client.open("/upload/c", WRITE | CREAT).await.refused(4);
}

#[tokio::test]
async fn a_quota_that_can_not_be_looked_up_refuses_nothing_for_good() {
    let mut gate = Gate::with(|a| a.quota = Quota { total_bytes: Some(1_000), ..Quota::default() }).await;
    let shaky = gate.shake();
    let mut client = gate.client().await;
    shaky.is(crate::shaky::Mood::Down);
    assert!(client.open("/upload/a", WRITE | CREAT).await.refused(4).contains("try again"));
    shaky.is(crate::shaky::Mood::Well);
    client.put("/upload/a", b"1").await.ok();
}
