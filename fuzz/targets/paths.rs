//! Whatever a client sends as a name, what comes of it stays in the tree and means the same thing everywhere.
#![no_main]

use dropgate_schemas::path::{Area, MAX_COMPONENT, MAX_DEPTH, MAX_PATH, Place, VirtualPath};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|sent: &[u8]| {
    let Ok(path) = VirtualPath::parse(sent) else { return };
    let text = path.as_str();
    assert!(text.starts_with('/') && text.len() <= MAX_PATH);
    assert!(text == "/" || !text.ends_with('/'));
    assert!(!text.contains(['\0', '\\', '\n', '\r', '\u{7f}', '\u{202e}']));
    let components: Vec<&str> = text.split('/').skip(1).filter(|_| text != "/").collect();
    assert!(components.len() <= MAX_DEPTH);
    for component in &components {
        assert!(!component.is_empty() && *component != "." && *component != "..");
        assert!(component.len() <= MAX_COMPONENT);
    }
    // The canonical form is its own canonical form, and so is the key.
    assert_eq!(VirtualPath::parse(text.as_bytes()).as_ref().map(VirtualPath::as_str), Ok(text));
    let by_key = VirtualPath::parse(path.key().as_bytes());
    assert_eq!(by_key.as_ref(), Ok(&path), "the key names the same path");
    assert_eq!(by_key.as_ref().map(VirtualPath::key), Ok(path.key()));
    if let Some(last) = components.last() {
        assert_eq!(path.name(), *last);
        assert_eq!(path.parent().join(path.name()), Ok(path.clone()));
    } else {
        assert_eq!(path.place(), Place::Root);
    }
    if let Place::Below(area) = path.place() {
        assert_eq!(path.in_area(area), path);
        for other in Area::ALL {
            assert_eq!(path.in_area(other).in_area(area), path);
        }
    }
});
