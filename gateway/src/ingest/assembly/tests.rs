use super::*;
use proptest::prelude::*;

const BLOCK: usize = 16;
const LIMITS: WindowLimits = WindowLimits { bytes: 64, pieces: 6 };

fn fresh() -> Assembly {
    Assembly::new(0, Vec::new(), BLOCK, LIMITS, Arc::default())
}

fn resumed(there: u64) -> Assembly {
    Assembly::new(there, Vec::new(), BLOCK, LIMITS, Arc::default())
}

/// Places a write and collects what was handed on.
fn write(assembly: &mut Assembly, out: &mut Vec<u8>, offset: u64, data: &[u8]) -> Result<bool, IngestError> {
    let placed = assembly.place(offset, data)?;
    if placed.restarted {
        out.clear();
    }
    for block in placed.full {
        assert_eq!(block.len(), BLOCK);
        out.extend(block);
    }
    Ok(placed.restarted)
}

#[test]
fn in_order_writes_never_enter_the_window_and_fill_whole_blocks() {
    let mut assembly = fresh();
    let mut out = Vec::new();
    for at in 0..10 {
        write(&mut assembly, &mut out, at * 7, b"1234567").unwrap();
        assert!(!assembly.has_gap());
    }
    assert_eq!((out.len(), assembly.filled(), assembly.contiguous()), (64, 6, 70));
}

#[test]
fn bytes_that_were_handed_on_cannot_be_written_again() {
    let mut assembly = fresh();
    let mut out = Vec::new();
    write(&mut assembly, &mut out, 0, &[1; 20]).unwrap();
    assert!(matches!(assembly.place(10, &[2; 2]), Err(IngestError::Rewrite { fixed: 16 })));
    // What has not been handed on can, also across its end.
    write(&mut assembly, &mut out, 18, &[3; 4]).unwrap();
    assert_eq!(assembly.take_fill(), [1, 1, 3, 3, 3, 3]);
    assert!(matches!(assembly.place(21, &[4]), Err(IngestError::Rewrite { fixed: 22 })));
}

#[test]
fn what_arrives_in_order_beats_what_waits() {
    let mut assembly = fresh();
    let mut out = Vec::new();
    write(&mut assembly, &mut out, 4, b"old!old!").unwrap();
    write(&mut assembly, &mut out, 0, b"newnew").unwrap();
    assert_eq!(assembly.take_fill(), b"newnewd!old!");
    assert!(!assembly.has_gap());
}

#[test]
fn a_continued_upload_goes_on_at_its_end() {
    let mut assembly = resumed(100);
    let mut out = Vec::new();
    // A client that sends out of order may begin anywhere behind the end.
    write(&mut assembly, &mut out, 104, b"efgh").unwrap();
    assert!(!write(&mut assembly, &mut out, 100, b"abcd").unwrap());
    assert_eq!(assembly.take_fill(), b"abcdefgh");
    assert_eq!(assembly.contiguous(), 108);
    assert!(matches!(assembly.place(0, b"x"), Err(IngestError::Rewrite { fixed: 108 })));
}

#[test]
fn or_starts_again_at_0() {
    let mut assembly = resumed(8);
    let mut out = Vec::new();
    assert!(write(&mut assembly, &mut out, 0, b"abcd").unwrap());
    assert_eq!(assembly.contiguous(), 4);
    assert!(!write(&mut assembly, &mut out, 4, b"efghijkl").unwrap());
    assert_eq!(assembly.take_fill(), b"abcdefghijkl");
}

#[test]
fn starting_again_out_of_order_is_not_taken_for_going_on() {
    let mut assembly = resumed(8);
    let mut out = Vec::new();
    write(&mut assembly, &mut out, 4, b"efgh").unwrap();
    // At the old end, but bytes before it have arrived already.
    write(&mut assembly, &mut out, 8, b"ijkl").unwrap();
    assert!(write(&mut assembly, &mut out, 0, b"abcd").unwrap());
    assert_eq!(assembly.take_fill(), b"abcdefghijkl");
}

#[test]
fn even_if_the_piece_at_the_old_end_comes_first() {
    let mut assembly = resumed(8);
    let mut out = Vec::new();
    assert!(!write(&mut assembly, &mut out, 8, b"ijkl").unwrap());
    write(&mut assembly, &mut out, 4, b"efgh").unwrap();
    assert!(write(&mut assembly, &mut out, 0, b"abcd").unwrap());
    assert_eq!(assembly.take_fill(), b"abcdefghijkl");
}

#[test]
fn a_client_that_begins_elsewhere_is_told_where() {
    let mut assembly = resumed(8);
    let mut out = Vec::new();
    for at in 0..4 {
        write(&mut assembly, &mut out, 40 + at * 16, &[0; 16]).unwrap();
    }
    let full = assembly.place(40 + 64, &[0; 16]).unwrap_err();
    assert_eq!(full.to_string(), "resume at 8 or start at 0");
    assert_eq!(assembly.gap().unwrap().to_string(), "resume at 8 or start at 0");
}

#[test]
fn content_at_hand_is_continued_or_replaced() {
    let at_hand = || Assembly::new(3, b"abc".to_vec(), BLOCK, LIMITS, Arc::default());
    let mut out = Vec::new();
    let mut goes_on = at_hand();
    write(&mut goes_on, &mut out, 3, b"def").unwrap();
    assert_eq!(goes_on.take_fill(), b"abcdef");
    let mut again = at_hand();
    assert!(write(&mut again, &mut out, 0, b"x").unwrap());
    assert_eq!(again.take_fill(), b"x");
    assert_eq!(at_hand().take_fill(), b"abc");
}

#[test]
fn cutting_reaches_down_to_what_was_handed_on() {
    let mut assembly = fresh();
    let mut out = Vec::new();
    write(&mut assembly, &mut out, 0, &[7; 20]).unwrap();
    write(&mut assembly, &mut out, 30, &[9; 10]).unwrap();
    assembly.truncate(35).unwrap();
    assert_eq!(assembly.held(), 4 + 5);
    assembly.truncate(18).unwrap();
    assert_eq!((assembly.contiguous(), assembly.held()), (18, 2));
    assert!(matches!(assembly.truncate(15), Err(IngestError::Rewrite { fixed: 16 })));
    assembly.truncate(0).unwrap();
    assert_eq!((assembly.contiguous(), assembly.held()), (0, 0));
    assert!(matches!(resumed(50).truncate(49), Err(IngestError::Rewrite { fixed: 50 })));
    assert!(resumed(50).truncate(50).is_ok());
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Truncate(u64),
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let write = |at: std::ops::Range<u64>| {
        (at, prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, data)| Step::Write(at, data))
    };
    prop_oneof![6 => write(0..40), 6 => write(0..200), 1 => (0_u64..200).prop_map(Step::Truncate), 1 => Just(Step::Take)]
}

proptest! {
    /// The model is a sparse file; what was handed on is its frozen beginning.
    #[test]
    fn behaves_like_a_sparse_file(steps in prop::collection::vec(step(), 1..60)) {
        let mut assembly = fresh();
        let mut out: Vec<u8> = Vec::new();
        let mut model: Vec<Option<u8>> = vec![None; 512];
        for step in steps {
            let fixed = out.len() as u64;
            match step {
                Step::Write(at, data) => match write(&mut assembly, &mut out, at, &data) {
                    Ok(_) => {
                        prop_assert!(at >= fixed);
                        for (i, byte) in data.iter().enumerate() { model[at as usize + i] = Some(*byte); }
                    }
                    Err(IngestError::Rewrite { fixed: told }) => prop_assert!(at < fixed && told == fixed),
                    Err(IngestError::TooFarAhead { missing, .. }) => prop_assert!(missing < at),
                    Err(other) => prop_assert!(false, "{other:?}"),
                },
                Step::Truncate(size) => match assembly.truncate(size) {
                    Ok(()) => {
                        model[size as usize..].fill(None);
                        if size < fixed { prop_assert_eq!(size, 0); out.clear(); }
                    }
                    Err(_) => prop_assert!(size < fixed && size > 0),
                },
                Step::Take => out.extend(assembly.take_fill()),
            }
            let contiguous = model.iter().position(Option::is_none).unwrap();
            prop_assert_eq!(assembly.contiguous(), contiguous as u64);
            prop_assert_eq!(assembly.held(), model.iter().flatten().count() - out.len());
            prop_assert_eq!(assembly.has_gap(), model.iter().flatten().count() > contiguous);
            prop_assert!(out.iter().zip(&model).all(|(o, m)| Some(*o) == *m));
        }
        let rest = assembly.take_fill();
        let end = out.len();
        prop_assert!(rest.iter().zip(&model[end..]).all(|(o, m)| Some(*o) == *m));
    }

    /// Chunks that swap places within a few positions always come together again, resumed or not.
    #[test]
    fn chunks_out_of_order_come_together(
        content in prop::collection::vec(any::<u8>(), 1..600),
        resume_at in 0_usize..300,
        keys in prop::collection::vec(0_usize..3, 100),
        start_over: bool,
        aligned: bool,
    ) {
        let resume_at = resume_at.min(content.len() - 1);
        let resume_at = if aligned { resume_at / 16 * 8 } else { resume_at };
        let from = if start_over { 0 } else { resume_at };
        let mut chunks: Vec<(usize, &[u8])> =
            content[from..].chunks(8).scan(from, |at, c| { let here = *at; *at += c.len(); Some((here, c)) }).collect();
        let order: Vec<usize> = (0..chunks.len()).map(|i| i + keys[i % keys.len()]).collect();
        let mut order: Vec<(usize, usize)> = order.into_iter().zip(0..).collect();
        order.sort_by_key(|(key, _)| *key);
        chunks = order.into_iter().map(|(_, i)| chunks[i]).collect();
        let mut assembly = resumed(resume_at as u64);
        let mut out = content[..resume_at].to_vec();
        for (at, chunk) in chunks {
            write(&mut assembly, &mut out, at as u64, chunk).unwrap();
        }
        out.extend(assembly.take_fill());
        prop_assert!(assembly.gap().is_none());
        prop_assert_eq!(out, content);
    }
}
