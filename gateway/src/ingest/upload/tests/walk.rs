//! Random walks through the life of an upload, against a plain vector.

use super::{BLOCK, Content, Fixture, OpenUpload, Sha256, Staged, Store};
use proptest::prelude::*;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    /// The next bytes, in order.
    Append(usize),
    /// The next two pieces, the second first.
    Swapped(usize, usize),
    /// The last bytes once more, with other content, if they are not staged yet.
    Again(usize),
    Flush,
    /// FSETSTAT to nothing.
    StartOver,
    /// The connection breaks; the client comes back and goes on, or starts again.
    Reconnect {
        go_on: bool,
    },
    /// Lets the worker run.
    Pause,
}

fn step() -> impl Strategy<Value = Step> {
    let piece = || 1..BLOCK * 3 / 4;
    prop_oneof![
        6 => piece().prop_map(Step::Append),
        4 => (piece(), piece()).prop_map(|(a, b)| Step::Swapped(a, b)),
        2 => (1_usize..2000).prop_map(Step::Again),
        2 => Just(Step::Flush),
        1 => Just(Step::StartOver),
        2 => any::<bool>().prop_map(|go_on| Step::Reconnect { go_on }),
        2 => Just(Step::Pause),
    ]
}

struct Walk {
    fixture: Fixture,
    upload: OpenUpload,
    model: Vec<u8>,
    next: u8,
}

impl Walk {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        self.next = self.next.wrapping_add(1);
        let first = self.next;
        (0..length).map(|i| first.wrapping_add((i / 7) as u8)).collect()
    }

    async fn take(&mut self, step: Step) {
        let end = self.model.len();
        match step {
            Step::Append(length) => {
                let data = self.bytes(length);
                self.upload.write(end as u64, &data).await.unwrap();
                self.model.extend(data);
            }
            Step::Swapped(first, second) => {
                let (first, second) = (self.bytes(first), self.bytes(second));
                self.upload.write((end + first.len()) as u64, &second).await.unwrap();
                self.upload.write(end as u64, &first).await.unwrap();
                self.model.extend(first.into_iter().chain(second));
            }
            Step::Again(length) => {
                let length = length.min(end);
                // A write to staged bytes spoils the upload, so it is only tried where it is allowed.
                let staged = {
                    let state = self.upload.shared.lock();
                    state.assembly.contiguous() - state.assembly.filled() as u64
                };
                if length > 0 && (end - length) as u64 >= staged && !self.upload.is_untouched() {
                    let data = self.bytes(length);
                    match self.upload.write((end - length) as u64, &data).await {
                        Ok(()) => self.model[end - length..].copy_from_slice(&data),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Step::Flush => self.upload.flush_durable().await.unwrap(),
            Step::StartOver => {
                self.upload.truncate(0).unwrap();
                self.model.clear();
            }
            Step::Reconnect { go_on } => {
                let staged: Option<Staged> = self.upload.park().await.staged;
                assert_eq!(staged.as_ref().map_or(0, |staged| staged.length), end as u64);
                self.upload = match staged {
                    Some(staged) => OpenUpload::resume(self.fixture.context.clone(), staged).unwrap(),
                    None => self.fixture.fresh(),
                };
                if !go_on {
                    self.model.clear();
                    let data = self.bytes(10);
                    self.upload.write(0, &data).await.unwrap();
                    self.model = data;
                }
            }
            Step::Pause => tokio::task::yield_now().await,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_content_is_what_the_client_sent_last(
        steps in prop::collection::vec(step(), 1..25),
        // Little memory makes it wait, and makes small uploads stream.
        memory in prop::sample::select(vec![1_usize << 20, 24 << 20]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::with(Store::open(), memory, |_| {});
            let mut walk = Walk { upload: fixture.fresh(), fixture, model: Vec::new(), next: 0 };
            for step in steps {
                let told = format!("{step:?} came to an end");
                tokio::time::timeout(Duration::from_secs(10), walk.take(step)).await.expect(&told);
                assert_eq!(walk.upload.received(), walk.model.len() as u64);
            }
            let finished = tokio::time::timeout(Duration::from_secs(10), walk.upload.finish()).await.unwrap().unwrap();
            assert_eq!((finished.size, finished.sha256), (walk.model.len() as u64, Sha256::of(&walk.model)));
            match &finished.content {
                Content::Inline(bytes) => assert_eq!(bytes, &walk.model),
                Content::Stored(blob) => assert!(walk.fixture.store.sealed(*blob) == walk.model),
            }
            drop(finished);
            drop(walk.upload);
            walk.fixture.assert_all_memory_is_back().await;
        });
    }
}
