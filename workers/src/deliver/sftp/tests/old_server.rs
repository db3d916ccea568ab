//! A server with the manners of an old one: asks for the password by keyboard-interactive only, has no extensions, sends
//! statuses without messages and with codes above 8, handles that are no text, and less data than was asked for.

use super::{openssh::setup, sshd::free_port};
use crate::{
    config::SftpConfig,
    harness::{House, within},
};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use dropgate_schemas::{delivery::VerifiedBy, reason::ReasonCode, upload::UploadState};
use russh::{
    Channel, ChannelId, MethodKind, MethodSet,
    keys::{Algorithm, HashAlg, PrivateKey},
    server::{self, Auth, ChannelOpenHandle, Msg, Response, Session},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, task::JoinHandle};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// What a handle looks like.
const HANDLE: &[u8] = b"\xff\xfe\0\x80";
const PASSWORD: &str = "correct horse";

struct OldServer {
    files: Files,
    port: u16,
    fingerprint: String,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Manners {
    files: Files,
    buffer: BytesMut,
    open: String,
    writable: bool,
}

impl OldServer {
    async fn start() -> Self {
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let fingerprint = key.public_key().fingerprint(HashAlg::Sha256).to_string();
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let methods = MethodSet::from(&[MethodKind::KeyboardInteractive][..]);
        let config = Arc::new(server::Config {
            keys: vec![key],
            methods,
            auth_rejection_time: std::time::Duration::ZERO,
            ..server::Config::default()
        });
        let files = Files::default();
        let shared = Arc::clone(&files);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let manners = Manners { files: Arc::clone(&shared), ..Manners::default() };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, stream, manners).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { files, port, fingerprint, serving }
    }

    fn destination(&self, password: &std::path::Path) -> SftpConfig {
        let text = format!(
            "name = \"as400\"\nhost = \"127.0.0.1\"\nport = {}\nusername = \"qsecofr\"\npassword = \"file:{}\"\nhost_keys = \
             [{:?}]\n",
            self.port,
            password.display(),
            self.fingerprint,
        );
        toml::from_str(&text).unwrap()
    }
}

impl server::Handler for Manners {
    type Error = russh::Error;

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(mut response) = response else {
            let prompts = vec![("Password: ".into(), false)];
            return Ok(Auth::Partial { name: "".into(), instructions: "".into(), prompts: prompts.into() });
        };
        let right = response.next().is_some_and(|typed| typed[..] == *PASSWORD.as_bytes());
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(id)
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        self.buffer.extend_from_slice(data);
        while self.buffer.len() >= 4 {
            let length = (&self.buffer[..4]).get_u32() as usize;
            if self.buffer.len() < 4 + length {
                break;
            }
            self.buffer.advance(4);
            let packet = self.buffer.split_to(length).freeze();
            let answer = self.answer(packet);
            let mut framed = BytesMut::new();
            framed.put_u32(u32::try_from(answer.len()).unwrap());
            framed.put_slice(&answer);
            session.data(id, framed.freeze())?;
        }
        Ok(())
    }
}

fn string(packet: &mut Bytes) -> Bytes {
    let length = packet.get_u32() as usize;
    packet.split_to(length)
}

fn text(packet: &mut Bytes) -> String {
    String::from_utf8(string(packet).to_vec()).unwrap()
}

fn status(id: u32, code: u32) -> Vec<u8> {
    let mut answer = vec![101];
    answer.put_u32(id);
    answer.put_u32(code);
    // No message, no language.
    answer
}

impl Manners {
    fn answer(&mut self, mut packet: Bytes) -> Vec<u8> {
        let kind = packet.get_u8();
        let id = packet.get_u32();
        if kind == 1 {
            return vec![2, 0, 0, 0, 3];
        }
        let mut files = self.files.lock().unwrap();
        match kind {
            3 => {
                let path = text(&mut packet);
                let flags = packet.get_u32();
                self.writable = flags & 2 != 0;
                if path.contains('/')
                    && self.writable
                    && !files.contains_key(path.rsplit_once('/').unwrap().0)
                {
                    return status(id, 4);
                }
                if self.writable {
                    files.insert(path.clone(), Vec::new());
                } else if !files.contains_key(&path) {
                    return status(id, 2);
                }
                self.open = path;
                let mut answer = vec![102];
                answer.put_u32(id);
                answer.put_u32(u32::try_from(HANDLE.len()).unwrap());
                answer.put_slice(HANDLE);
                answer
            }
            4 => status(id, 0),
            5 => {
                assert_eq!(&string(&mut packet)[..], HANDLE);
                let at = usize::try_from(packet.get_u64()).unwrap();
                let file = &files[&self.open];
                if at >= file.len() {
                    return status(id, 1);
                }
                let length = (packet.get_u32() as usize).min(1000).min(file.len() - at);
                let mut answer = vec![103];
                answer.put_u32(id);
                answer.put_u32(u32::try_from(length).unwrap());
                answer.put_slice(&file[at..at + length]);
                answer
            }
            6 => {
                assert_eq!(&string(&mut packet)[..], HANDLE);
                let at = usize::try_from(packet.get_u64()).unwrap();
                let data = string(&mut packet);
                if data.starts_with(b"too much") {
                    return status(id, 14);
                }
                let file = files.get_mut(&self.open).unwrap();
                file.resize(file.len().max(at + data.len()), 0);
                file[at..at + data.len()].copy_from_slice(&data);
                status(id, 0)
            }
            7 | 17 => match files.get(&text(&mut packet)) {
                Some(file) => {
                    let mut answer = vec![105];
                    answer.put_u32(id);
                    answer.put_u32(1);
                    answer.put_u64(file.len() as u64);
                    answer
                }
                None => status(id, 2),
            },
            13 => {
                let path = text(&mut packet);
                status(id, if files.remove(&path).is_some() { 0 } else { 2 })
            }
            14 => {
                let path = text(&mut packet);
                if files.contains_key(&path) {
                    return status(id, 11);
                }
                files.insert(path, Vec::new());
                status(id, 0)
            }
            16 => status(id, 8),
            18 => {
                let (from, to) = (text(&mut packet), text(&mut packet));
                if files.contains_key(&to) {
                    return status(id, 11);
                }
                match files.remove(&from) {
                    Some(file) => {
                        files.insert(to, file);
                        status(id, 0)
                    }
                    None => status(id, 2),
                }
            }
            other => panic!("request {other} was not expected"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delivers_to_a_server_with_the_manners_of_an_old_one() {
    let server = OldServer::start().await;
    let house = House::new().await;
    let password = house.dir.path().join("password");
    std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let mut setup = setup(&house, server.destination(&password));
    setup.routes[0].key = "in/{name}".to_owned();
    let crew = house.work_with(setup).await;
    let large: Vec<u8> = (0..300_001_u32).map(|n| (n % 251) as u8).collect();
    for bytes in [b"small", &large[..], b""] {
        let upload = house.accept("/upload/a.txt", bytes).await;
        let done = house.until_state(upload.upload_id, UploadState::Processed).await;
        let receipt = done.deliveries[0].receipt.clone().unwrap();
        assert_eq!(receipt.verified_by, VerifiedBy::Sha256Readback);
        assert_eq!(receipt.uri, format!("sftp://127.0.0.1:{}/./in/a.txt", server.port));
        assert!(server.files.lock().unwrap()["./in/a.txt"] == bytes);
    }
    // A status that version 3 doesn't know fails the delivery, not the session.
    let upload = house.accept("/upload/b.txt", b"too much").await;
    let waiting = house.until(upload.upload_id, |u| u.deliveries.iter().any(|d| d.reason.is_some())).await;
    let sentence = waiting.deliveries[0].reason.clone().unwrap().sentence;
    assert!(sentence.contains("14 (no space) without a message"), "{sentence}");
    let left: Vec<String> = server.files.lock().unwrap().keys().cloned().collect();
    assert_eq!(left, ["./in", "./in/a.txt"]);
    crew.stop().await;
    house.close().await;
    server.serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_refused_and_not_repeated_anywhere() {
    let server = OldServer::start().await;
    let house = House::new().await;
    let password = house.dir.path().join("password");
    std::fs::write(&password, "hunter2").unwrap();
    let crew = house.work_with(setup(&house, server.destination(&password))).await;
    let upload = house.accept("/upload/a", b"x").await;
    let failed = house.until_state(upload.upload_id, UploadState::Failed).await;
    let reason = failed.reason.clone().unwrap();
    assert_eq!(reason.code, ReasonCode::Denied);
    assert!(reason.sentence.contains("refused the password of user \"qsecofr\""), "{}", reason.sentence);
    assert!(!format!("{failed:?}").contains("hunter2"));
    within(crew.stop()).await;
    house.close().await;
    server.serving.abort();
}
