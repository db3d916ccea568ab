use crate::client::{CREAT, Gate, Got, TRUNC, WRITE, string};
use dropgate_schemas::digest::Sha256;

#[tokio::test]
async fn names_are_kept_as_sent_and_compared_as_nfc() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let nfd = "/upload/Mu\u{308}ller & So\u{308}hne.csv";
    client.put(nfd, b"x").await.ok();
    assert_eq!(client.list("/upload").await, ["Mu\u{308}ller & So\u{308}hne.csv"]);
    assert_eq!(client.stat("/upload/M\u{fc}ller & S\u{f6}hne.csv").await.size(), 1);
    for bad in
        ["/upload/a\\b", "/upload/a\nb", "/upload/ a", "/upload/a ", "/upload/a.", "/upload/\u{202e}exe.txt"]
    {
        let text = client.open(bad, WRITE | CREAT | TRUNC).await.refused(4);
        assert!(text.contains("[ref "), "{text}");
    }
    let mut fields = string(b"/upload/\xff\xfe");
    fields.extend([0, 0, 0, 0x1a, 0, 0, 0, 0]);
    assert!(client.ask(3, &fields).await.refused(4).contains("UTF-8"));
    assert!(
        client.open(&format!("/upload/{}", "x".repeat(256)), WRITE | CREAT).await.refused(4).contains("255")
    );
}

#[tokio::test]
async fn realpath_is_lexical_and_extensions_answer() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    for (sent, canonical) in [(".", "/"), ("upload/../..", "/"), ("/upload//x/./y", "/upload/x/y")] {
        let Got::Names(names) = client.ask(16, &string(sent.as_bytes())).await else { panic!() };
        assert_eq!(names[0].0, canonical);
    }
    let Got::Extended(limits) = client.extended("limits@openssh.com", b"").await else { panic!() };
    let value = |i: usize| u64::from_be_bytes(limits[i * 8..i * 8 + 8].try_into().unwrap());
    assert_eq!((value(0), value(1), value(2), value(3)), (262_144, 261_120, 261_120, 100));
    client.put("/upload/a", b"content").await.ok();
    let mut fields = [string(b"/upload/a"), string(b"md5,sha256")].concat();
    fields.extend([0; 20]);
    let Got::Extended(digest) = client.extended("check-file-name", &fields).await else { panic!() };
    assert_eq!(digest, [string(b"sha256"), Sha256::of(b"content").0.to_vec()].concat());
    let Got::Extended(room) = client.extended("statvfs@openssh.com", &string(b"/upload")).await else {
        panic!()
    };
    assert_eq!(room.len(), 88);
    client.extended("copy-data", b"").await.refused(8);
    client
        .extended("hardlink@openssh.com", &[string(b"/upload/a"), string(b"/upload/b")].concat())
        .await
        .refused(8);
    client.ask(19, &string(b"/upload/a")).await.refused(8);
    client.ask(77, b"").await.refused(8);
    let mut inner = [string(b"WinSCP"), string(b"WinSCP"), string(b"6.3")].concat();
    inner.extend([0; 8]);
    client.extended("vendor-id", &string(&inner)).await.ok();
    client.put("/upload/b", b"content").await.ok();
    assert!(gate.uploads().await.iter().any(|u| u.client.software == "WinSCP WinSCP 6.3"));
    let handle = client.open("/upload/c", WRITE | CREAT | TRUNC).await.handle();
    client.write(&handle, 0, b"durable").await.ok();
    client.extended("fsync@openssh.com", &string(&handle)).await.ok();
    client.close(&handle).await.ok();
}

#[tokio::test]
async fn nonsense_closes_the_channel_and_runs_nothing() {
    let gate = Gate::start().await;
    for nonsense in [
        // A WRITE of 1 MiB: its payload must not be read as requests.
        &[0, 0x10, 0, 0, 6, 0, 0, 0, 1][..],
        // A second INIT.
        &[0, 0, 0, 5, 1, 0, 0, 0, 3],
        // An OPEN that ends inside its path.
        &[0, 0, 0, 10, 3, 0, 0, 0, 1, 0, 0, 0, 9, 47],
        // A packet of no length.
        &[0, 0, 0, 0, 1],
    ] {
        let mut client = gate.client().await;
        client.feed(nonsense).await.unwrap_err();
        client.disconnect().await;
    }
    let mut client = gate.client_without_init();
    client.feed(&[0, 0, 0, 9, 17, 0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap_err();
    client.disconnect().await;
    assert!(gate.uploads().await.is_empty());
}

#[tokio::test]
async fn handles_are_capped_and_checked() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    let mut handles = Vec::new();
    for i in 0..100 {
        handles.push(client.open(&format!("/upload/{i}"), WRITE | CREAT | TRUNC).await.handle());
    }
    assert!(
        client.open("/upload/one-more", WRITE | CREAT | TRUNC).await.refused(4).contains("close some first")
    );
    client.close(&handles[0]).await.ok();
    client.open("/upload/one-more", WRITE | CREAT | TRUNC).await.handle();
    client.close(&handles[0]).await.refused(4);
    client.write(b"nonsense", 0, b"x").await.refused(4);
    client.disconnect().await;
    assert!(
        !gate.uploads().await.iter().any(|u| u.state.is_unfinished()),
        "nothing durable was left to resume"
    );
}
