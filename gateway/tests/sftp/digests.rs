use crate::client::{CREAT, Client, Gate, Got, TRUNC, WRITE, string};
use dropgate_schemas::digest::Sha256;

/// `check-file-name` or `-handle` with algorithms, start, length and block size.
async fn ask(client: &mut Client, name: &str, of: &[u8], algorithms: &str, at: (u64, u64, u32)) -> Got {
    let mut fields = [string(of), string(algorithms.as_bytes())].concat();
    fields.extend(at.0.to_be_bytes());
    fields.extend(at.1.to_be_bytes());
    fields.extend(at.2.to_be_bytes());
    client.extended(name, &fields).await
}

fn digest(content: &[u8]) -> Got {
    Got::Extended([string(b"sha256"), Sha256::of(content).0.to_vec()].concat())
}

#[tokio::test]
async fn the_digest_of_a_whole_file_is_told_by_name_however_it_is_asked_for() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/a", b"content").await.ok();
    for at in [(0, 0, 0), (0, 7, 0), (0, 0, 7), (0, 7, 4096)] {
        let got = ask(&mut client, "check-file-name", b"/upload/a", "md5,sha256,sha1", at).await;
        assert_eq!(got, digest(b"content"), "{at:?}");
    }
    for at in [(1, 0, 0), (0, 6, 0), (0, 8, 0), (0, 0, 6)] {
        let got = ask(&mut client, "check-file-name", b"/upload/a", "sha256", at).await;
        assert!(got.refused(4).contains("whole file"), "{at:?}");
    }
    for algorithms in ["", "md5", "sha1,sha512", "sha2560"] {
        let got = ask(&mut client, "check-file-name", b"/upload/a", algorithms, (0, 0, 0)).await;
        assert!(got.refused(4).contains("sha256"), "{algorithms}");
    }
    client.put("/upload/empty", b"").await.ok();
    let got = ask(&mut client, "check-file-name", b"/upload/empty", "sha256", (0, 0, 0)).await;
    assert_eq!(got, digest(b""));
}

#[tokio::test]
async fn a_handle_tells_the_digest_of_what_was_complete_before_it_was_opened() {
    let gate = Gate::start().await;
    let mut client = gate.client().await;
    client.put("/upload/a", b"accepted").await.ok();
    client.put("/upload/b.filepart", b"held").await.ok();
    for (path, content) in [("/upload/a", &b"accepted"[..]), ("/upload/b.filepart", b"held")] {
        let handle = client.open(path, WRITE | CREAT).await.handle();
        assert_eq!(
            ask(&mut client, "check-file-handle", &handle, "sha256", (0, 0, 0)).await,
            digest(content)
        );
        assert_eq!(
            ask(&mut client, "check-file-name", path.as_bytes(), "sha256", (0, 0, 0)).await,
            digest(content)
        );
        let got = ask(&mut client, "check-file-handle", &handle, "md5", (0, 0, 0)).await;
        assert!(got.refused(4).contains("sha256"));
        // Something else is on its way.
        client.write(&handle, 0, b"new").await.ok();
        let got = ask(&mut client, "check-file-handle", &handle, "sha256", (0, 0, 0)).await;
        assert!(got.refused(4).contains("once the file is closed"));
        client.close(&handle).await.ok();
    }
    let handle = client.open("/upload/c", WRITE | CREAT | TRUNC).await.handle();
    let got = ask(&mut client, "check-file-handle", &handle, "sha256", (0, 0, 0)).await;
    assert!(got.refused(4).contains("once the file is closed"));
    let got = ask(&mut client, "check-file-name", b"/upload/c", "sha256", (0, 0, 0)).await;
    assert!(got.refused(4).contains("not complete"));
    ask(&mut client, "check-file-handle", b"none", "sha256", (0, 0, 0)).await.refused(4);
}
