//! Bytes that change on the way or at the store, wrong settings, and stores that don't answer.

use super::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What the proxy looks for in bodies.
const MARK: &[u8] = b"here-it-is-changed";

/// Passes everything on to the store, and changes a byte after each [`MARK`] on the way there.
async fn flipping(endpoint: &str) -> String {
    let store = endpoint.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let store = TcpStream::connect(&store).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_store, mut to_store) = store.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_store, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    let piece = &mut buffer[..length];
                    if let Some(at) = piece.windows(MARK.len()).position(|window| window == MARK) {
                        piece[at] ^= 1;
                    }
                    to_store.write_all(piece).await.ok()?;
                }
                Some(())
            });
        }
    });
    format!("http://{address}")
}

/// Answers every request as Amazon does when the bucket is in another region; MinIO takes any.
async fn elsewhere() -> String {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AuthorizationHeaderMalformed</Code><Message>The \
                authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'</Message>\
                <Region>eu-west-1</Region></Error>";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = client.read(&mut request).await;
                let body = if request.starts_with(b"HEAD") { "" } else { body };
                let answer = format!(
                    "HTTP/1.1 400 Bad Request\r\nx-amz-bucket-region: eu-west-1\r\ncontent-type: application/xml\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = client.write_all(answer.as_bytes()).await;
                let _ = client.shutdown().await;
            });
        }
    });
    format!("http://{address}")
}

fn marked(size: usize) -> Vec<u8> {
    MARK.iter().copied().cycle().take(size).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_changes_on_the_way_makes_nothing_visible() {
    let (bucket, house) = (Bucket::make().await, House::without_relay().await);
    let config = S3Config { endpoint: Some(flipping(&bucket.endpoint).await), ..bucket.config(&house) };
    let s3 = S3::new(&config, house.backends.secrets.clone());
    for (key, size) in [("small", 4_000), ("large", 11 << 20)] {
        let load = Load::new(&house, key, &marked(size)).await;
        let error = load.deliver(&house, &s3).await.unwrap_err();
        assert!(matches!(error, DeliverError::Digest(_)), "{key}: {error:?}");
        assert_eq!(bucket.keys().await, Vec::<String>::new());
        assert_eq!(bucket.unfinished(&format!("in/{key}")).await, 0);
        // Without the mark everything goes through: it was the proxy.
        let load = Load::new(&house, &format!("{key}-good"), &content(size, 1)).await;
        load.deliver(&house, &s3).await.unwrap().unwrap();
        let made = format!("in/{key}-good");
        bucket.operator.delete_object().bucket(&bucket.name).key(made).send().await.unwrap();
    }
    house.close().await;
    bucket.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_at_the_store_are_found_and_taken_away() {
    let (bucket, house) = (Bucket::make().await, House::without_relay().await);
    let s3 = bucket.adapter(&house);
    for size in [4_000, 11 << 20] {
        let bytes = content(size, 1);
        let load = Load::new(&house, "file", &bytes).await;
        let staged = load.stage(&house, &s3).await.unwrap();
        s3.finish(&load.target, &staged).await.unwrap();
        let metadata = bucket.metadata("in/file").await;
        let mut wrong = bytes.clone();
        wrong[size / 2] ^= 1;
        bucket.write("in/file", &wrong, metadata.clone()).await;
        let error = s3.verify(&load.target, &staged).await.unwrap_err();
        assert!(matches!(error, DeliverError::Digest(_)), "{error:?}");
        assert!(error.to_string().contains("it was taken away again"), "{error}");
        assert_eq!(bucket.keys().await, Vec::<String>::new());

        // Right bytes of which the store knows no checksum that we do: read back. Too many to read: their size.
        bucket.write("in/file", &bytes, metadata).await;
        let proof = s3.verify(&load.target, &staged).await.unwrap().unwrap();
        assert_eq!(proof.verified_by, VerifiedBy::Sha256Readback);
        let config = S3Config { read_back_bytes: 10, ..bucket.config(&house) };
        let hurried = S3::new(&config, house.backends.secrets.clone());
        let proof = hurried.verify(&load.target, &staged).await.unwrap().unwrap();
        assert_eq!(proof.verified_by, VerifiedBy::Size);
        // Somebody else's now.
        bucket.write("in/file", &bytes, HashMap::new()).await;
        assert_eq!(s3.verify(&load.target, &staged).await.unwrap(), None);
        bucket.operator.delete_object().bucket(&bucket.name).key("in/file").send().await.unwrap();
    }
    house.close().await;
    bucket.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_with_its_remedy() {
    let (bucket, house) = (Bucket::make().await, House::without_relay().await);
    let good = bucket.config(&house);
    let data = house.dir.path().join("data");
    std::fs::write(data.join("bad"), "NOTAKEY").unwrap();
    let bad = || Some("file:bad".to_owned());
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = format!("http://{}", silent.local_addr().unwrap());
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused_at = format!("http://{}", refused.local_addr().unwrap());
    drop(refused);
    let second: Seconds = Seconds::from(1);
    for (config, denied, parts) in [
        (
            S3Config { access_key_id: bad(), ..good.clone() },
            true,
            vec!["does not accept the access key", "check access_key_id"],
        ),
        (
            S3Config { secret_access_key: bad(), ..good.clone() },
            true,
            vec!["does not accept the access key", "secret_access_key"],
        ),
        (
            S3Config { bucket: format!("{}-none", bucket.name), ..good.clone() },
            true,
            vec!["there is no bucket", "-none", "create it"],
        ),
        (
            S3Config { endpoint: Some(elsewhere().await), ..good.clone() },
            true,
            vec!["is not in the region us-east-1", "set region of the destination to eu-west-1"],
        ),
        (
            S3Config { access_key_id: Some("file:nowhere".to_owned()), ..good.clone() },
            true,
            vec!["file:nowhere", "create "],
        ),
        (
            S3Config { endpoint: Some(silent_at), deadline_seconds: second, ..good.clone() },
            false,
            vec!["no answer to the request"],
        ),
        (S3Config { endpoint: Some(refused_at), ..good.clone() }, false, vec!["no answer to the request"]),
    ] {
        let s3 = S3::new(&config, house.backends.secrets.clone());
        for size in [10, 6 << 20] {
            let load = Load::new(&house, "file", &content(size, 1)).await;
            let error = load.deliver(&house, &s3).await.unwrap_err();
            assert_eq!(matches!(error, DeliverError::Denied(_)), denied, "{error:?}");
            assert_eq!(matches!(error, DeliverError::Unavailable(_)), !denied, "{error:?}");
            for part in &parts {
                assert!(error.to_string().contains(part), "{part}: {error}");
            }
            assert!(!error.to_string().contains("NOTAKEY"), "{error}");
        }
    }
    drop(silent);
    house.close().await;
    bucket.gone().await;
}
