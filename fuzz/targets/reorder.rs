//! The reorder window against the simplest thing that does the same: one optional byte for each offset.
#![no_main]

use arbitrary::Arbitrary;
use dropgate_gateway::ingest::reorder::{ReorderWindow, WindowLimits};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Step {
    Hold { at: u8, data: Vec<u8> },
    DiscardBefore(u8),
    DiscardFrom(u8),
    Take(u8),
    Clear,
}

#[derive(Arbitrary, Debug)]
struct Input {
    bytes: u8,
    pieces: u8,
    steps: Vec<Step>,
}

/// Room for the largest offset and the longest data.
const SPACE: usize = 512;

fuzz_target!(|input: Input| {
    let limits = WindowLimits { bytes: usize::from(input.bytes), pieces: usize::from(input.pieces) };
    let mut window = ReorderWindow::new(limits);
    let mut model: Vec<Option<u8>> = vec![None; SPACE];
    for step in input.steps {
        match step {
            Step::Hold { at, data } => {
                let at = usize::from(at);
                let data = &data[..data.len().min(SPACE - 256)];
                let mut after = model.clone();
                for (place, byte) in after[at..].iter_mut().zip(data) {
                    *place = Some(*byte);
                }
                let fits = after.iter().flatten().count() <= limits.bytes;
                let checked = window.check(at as u64, data.len());
                let held = window.hold(at as u64, data);
                assert_eq!(checked, held);
                match held {
                    Ok(()) => {
                        assert!(fits, "over the bound of bytes");
                        model = after;
                    }
                    // Each run of bytes in the model is at least one piece.
                    Err(_) if fits => assert!(window.bytes() + 2 >= limits.pieces, "refused without need"),
                    Err(_) => {}
                }
            }
            Step::DiscardBefore(end) => {
                window.discard_before(u64::from(end));
                model[..usize::from(end)].fill(None);
            }
            Step::DiscardFrom(start) => {
                window.discard_from(u64::from(start));
                model[usize::from(start)..].fill(None);
            }
            Step::Take(at) => {
                let at = usize::from(at);
                match window.take(at as u64) {
                    Some(piece) => {
                        assert!(!piece.is_empty());
                        for (place, byte) in model[at..].iter_mut().zip(&piece) {
                            assert_eq!(place.take(), Some(*byte));
                        }
                    }
                    None => assert!(window.first_offset() != Some(at as u64)),
                }
            }
            Step::Clear => {
                window.clear();
                model.fill(None);
            }
        }
        assert_eq!(window.bytes(), model.iter().flatten().count());
        assert!(window.bytes() <= limits.bytes);
        assert_eq!(window.is_empty(), window.bytes() == 0);
        assert_eq!(window.first_offset(), model.iter().position(Option::is_some).map(|at| at as u64));
        assert_eq!(window.end(), model.iter().rposition(Option::is_some).map(|at| at as u64 + 1));
    }
    // What is left comes out piece by piece and is what the model holds.
    while let Some(at) = window.first_offset() {
        let piece = window.take(at).expect("a piece begins at the first offset");
        for (place, byte) in model[at as usize..].iter_mut().zip(&piece) {
            assert_eq!(place.take(), Some(*byte));
        }
    }
    assert!(model.iter().all(Option::is_none));
});
