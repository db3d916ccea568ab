//! Running out of file descriptors. In a program of its own: the limit is the process's.

#[cfg(test)]
mod test {
    use std::os::fd::AsRawFd as _;
    use std::sync::Arc;
    use std::time::Duration;

    use async_trait::async_trait;
    use dropgate_backends::{CredentialError, CredentialStore, StateError};
    use dropgate_gateway::listener::{Listener, ListenerConfig, ListenerDependencies};
    use dropgate_gateway::ssh::hostkey::{HostKey, HostKeyKind, HostKeys};
    use dropgate_gateway::ssh::observer::LogObserver;
    use dropgate_gateway::ssh::{Accounts, ChannelEngine, EngineContext, EngineFactory};
    use dropgate_schemas::account::{Account, AccountName, Credentials};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    struct Nobody;

    #[async_trait]
    impl Accounts for Nobody {
        async fn account(&self, _: &AccountName) -> Result<Option<Account>, StateError> {
            Ok(None)
        }
        async fn accounts(&self, _: &[AccountName]) -> Result<Vec<Account>, StateError> {
            Ok(Vec::new())
        }
    }

    #[async_trait]
    impl CredentialStore for Nobody {
        async fn lookup(&self, _: &AccountName) -> Result<Option<Credentials>, CredentialError> {
            Ok(None)
        }
        async fn put(&self, _: Credentials) -> Result<(), CredentialError> {
            Ok(())
        }
        async fn remove(&self, _: &AccountName) -> Result<(), CredentialError> {
            Ok(())
        }
        async fn check(&self) -> Result<(), CredentialError> {
            Ok(())
        }
    }

    impl EngineFactory for Nobody {
        fn open(&self, _: EngineContext) -> Box<dyn ChannelEngine> {
            unreachable!("nobody logs in")
        }
    }

    async fn greeting(stream: &mut TcpStream) -> [u8; 8] {
        let mut greeting = [0; 8];
        tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut greeting))
            .await
            .expect("a greeting in time")
            .unwrap();
        greeting
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn accepting_goes_on_when_descriptors_are_back() {
        let config = ListenerConfig { listen: ([127, 0, 0, 1], 0).into(), ..ListenerConfig::default() };
        let listener = Listener::bind(
            config,
            ListenerDependencies {
                credentials: Arc::new(Nobody),
                accounts: Arc::new(Nobody),
                engines: Arc::new(Nobody),
                observer: Arc::new(LogObserver),
                host_keys: HostKeys::from_keys(vec![HostKey::generate(HostKeyKind::Ed25519).unwrap()]),
            },
        )
        .await
        .unwrap();
        let address = listener.local_addr();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(listener.serve(shutdown.clone()));
        // Stays open: its end would give a descriptor back at some moment.
        let mut first = TcpStream::connect(address).await.unwrap();
        greeting(&mut first).await;

        // One descriptor is left: the client's end takes it, and accept has none, over and over.
        let before = getrlimit(Resource::Nofile);
        let highest = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap())
            .max()
            .unwrap();
        // Fill the gaps below the highest number, so that the limit counts.
        let filler: Vec<std::fs::File> = std::iter::from_fn(|| {
            let file = std::fs::File::open("/dev/null").unwrap();
            (file.as_raw_fd() as u64 <= highest).then_some(file)
        })
        .collect();
        let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
        setrlimit(Resource::Nofile, Rlimit { current: Some(next + 1), maximum: before.maximum }).unwrap();
        let mut waiting = TcpStream::connect(address).await.unwrap();
        assert_eq!(
            std::fs::File::open("/dev/null").unwrap_err().raw_os_error(),
            Some(rustix::io::Errno::MFILE.raw_os_error())
        );
        let early = tokio::time::timeout(Duration::from_millis(500), waiting.read_u8()).await;
        assert!(early.is_err(), "accepted without a descriptor? {early:?}");
        assert!(!serving.is_finished(), "the accept loop survived");
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!(&greeting(&mut waiting).await, b"SSH-2.0-");
        drop((first, filler));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(30), serving).await.unwrap().unwrap();
    }
}
