use super::*;
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

const EDIFACT: &str = "UNA:+.? '\r\nUNB+UNOC:3+4012345000009:14+4399901879820:14+260105:1015+45126++ORDERS'\r\n\
    UNH+1+ORDERS:D:96A:UN:EAN008'\r\nBGM+220+B10001+9'\r\nDTM+137:20260105:102'\r\nNAD+BY+4012345000009::9'\r\n";
const EDIFACT_BARE: &str =
    "UNB+UNOA:2+SENDER+RECEIVER+260105:0930+REF00001'UNH+1+INVOIC:D:01B:UN:EAN010'BGM+380+RE4711+9'";
const X12: &str = "ISA*00*          *00*          *ZZ*SENDERID       *ZZ*RECEIVERID     *260105*1015*U*00401*000000905*0*P*>~\n\
    GS*PO*SENDERID*RECEIVERID*20260105*1015*905*X*004010~\nST*850*0001~\nBEG*00*SA*4711**20260105~\n";
const X12_UNPADDED: &str =
    "ISA|00||00||ZZ|ACME|01|0012345|260105|1015|U|00501|7|0|T|:^GS|IN|ACME|0012345|20260105|1015|7|X|005010^";
const MT103: &str = "{1:F01DEUTDEFFAXXX0000000000}{2:I103COBADEFFXXXXN}{3:{108:MT103 001}}{4:\r\n:20:REF4711\r\n:23B:CRED\r\n\
    :32A:260105EUR1250,00\r\n:50K:/DE89370400440532013000\r\nMUSTER GMBH\r\n-}";
const MT940_OUT: &str = "{1:F01COBADEFFAXXX1234567890}{2:O9400915260105DEUTDEFFAXXX00000000002601050915N}{4:\r\n:20:STARTUMS\r\n-}";
const HL7: &str =
    "MSH|^~\\&|LAB|HOSP|EHR|HOSP|20260105101500||ORU^R01|MSG00001|P|2.5\rPID|1||12345^^^HOSP^MR||DOE^JANE\r";
const HL7_27: &str = "MSH|^~\\&#|A|B|C|D|20260105||ADT^A01|1|P|2.7\r";
const HL7_BATCH: &str = "FHS|^~\\&|LAB|HOSP\rBHS|^~\\&|LAB|HOSP\rMSH|^~\\&|LAB|HOSP|EHR\r";
const PAIN001: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:pain.001.001.09\" \
    xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n  <CstmrCdtTrfInitn><GrpHdr><MsgId>M1</MsgId></GrpHdr></CstmrCdtTrfInitn>\n</Document>\n";
const WRAPPED_CAMT: &str = "<!-- export -->\n<b:Envelope xmlns:b='urn:bank:wrapper'><AppHdr xmlns='urn:iso:std:iso:20022:tech:xsd:head.001.001.02'/></b:Envelope>";
const CSV_QUOTED: &str =
    "id,name,note\r\n1,\"Smith, Jane\",\"said \"\"yes\"\"\"\r\n2,Bob,\"two\nlines\"\r\n3,Eve,\r\n";
const CSV_BMW: &str = "BMW;320d;38950,00\nBMW;X5;81200,00\nAudi;A4;41000,00\n";
const PROSE: &str = "Dear Ms Smith,\n\nthank you for your order, which we received today. We will ship it\nsoon, and we will send you \
    an invoice, as agreed.\n\nKind regards,\nACME\n";

/// What a whole file is called.
fn label(content: impl AsRef<[u8]>) -> String {
    let content = content.as_ref();
    let found = by_rules(content, content.len() as u64);
    format!("{} {}", found.label, found.found_by)
}

/// What a file is called of which these bytes are the beginning.
fn label_of_beginning(head: impl AsRef<[u8]>) -> String {
    let found = by_rules(head.as_ref(), 10_000_000);
    format!("{} {}", found.label, found.found_by)
}

#[test]
fn names_what_partners_send() {
    let pdf: &[u8] = b"%PDF-1.7\n%\xE2\xE3\xCF\xD3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n";
    let png: &[u8] = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
    let zip: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0\0\0!\0abcdabcdabcdabcd\x05\0\0\0a.csv";
    let gzip: &[u8] = b"\x1F\x8B\x08\0\0\0\0\0\0\x03\x4B\x4C\x4A\x06\0";
    let ole: &[u8] = b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x3E\0\x03\0";
    let bmp: &[u8] = b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0\x02\0\0\0";
    let pgp: &[u8] = b"\x85\x01\x0C\x03\x11\x22\x33\x44\x55\x66\x77\x88\x01\x07\xFF\x00\x11";
    let table: &[(&[u8], &str)] = &[
        (b"", "empty empty"),
        (EDIFACT.as_bytes(), "edifact rule:edifact"),
        (EDIFACT_BARE.as_bytes(), "edifact rule:edifact"),
        (b"UNB\x1DUNOB\x1F1\x1DSENDER\x1DRECEIVER\x1D260105\x1F0930\x1D1\x1C", "edifact rule:edifact"),
        (X12.as_bytes(), "x12 rule:x12"),
        (X12_UNPADDED.as_bytes(), "x12 rule:x12"),
        (MT103.as_bytes(), "swift-mt rule:swift-mt"),
        (MT940_OUT.as_bytes(), "swift-mt rule:swift-mt"),
        (b"\x01{1:F01DEUTDEFFAXXX0000000000}{2:I103COBADEFFXXXXN}{4:\r\n-}\x03", "swift-mt rule:swift-mt"),
        (HL7.as_bytes(), "hl7v2 rule:hl7v2"),
        (HL7_27.as_bytes(), "hl7v2 rule:hl7v2"),
        (HL7_BATCH.as_bytes(), "hl7v2 rule:hl7v2"),
        (b"\x0BMSH|^~\\&|LAB|HOSP\rPID|1\r\x1C\r", "hl7v2 rule:hl7v2"),
        (PAIN001.as_bytes(), "iso20022 rule:iso20022"),
        (WRAPPED_CAMT.as_bytes(), "iso20022 rule:iso20022"),
        (b"<?xml version='1.0'?><order id='7'/>", "xml rule:xml"),
        (b"<!DOCTYPE order SYSTEM 'order.dtd'>\n<order/>\n", "xml rule:xml"),
        (b"<Rechnung><Nr>1</Nr></Rechnung>\r\n", "xml rule:xml"),
        (b"<!DOCTYPE html>\n<html><body>Hi</body></html>", "html infer"),
        (b"<HTML>\n<body>Hi</body></HTML>", "html infer"),
        (b"{\"a\": [1, 2, {\"b\": null}]}\n", "json rule:json"),
        (b"[]", "json rule:json"),
        (b"{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n", "ndjson rule:ndjson"),
        (CSV_QUOTED.as_bytes(), "csv rule:csv"),
        (CSV_BMW.as_bytes(), "csv rule:csv"),
        (b"a\tb\tc\n1\t2\t3\n4\t5\t6\n", "tsv rule:csv"),
        (b"Stra\xDFe;Ort;PLZ\nHauptweg 1;K\xF6ln;50667\nAllee 2;Bonn;53111\n", "csv rule:csv"),
        (PROSE.as_bytes(), "txt rule:text-utf8"),
        ("Grüße aus Köln\n".as_bytes(), "txt rule:text-utf8"),
        (b"Sehr geehrte Damen und Herren, anbei die gew\xFCnschte Liste.\n", "txt rule:text-8bit"),
        (b"\xFF\xFEH\0e\0l\0l\0o\0\n\0", "txt rule:text-utf16"),
        (b"\xFE\xFF\0<\0?\0x\0m\0l\0 \0v\0e\0r\0?\0>\0<\0a\0/\0>", "xml rule:xml"),
        (b"\xEF\xBB\xBF{\"a\":1}", "json rule:json"),
        (b"-----BEGIN PGP MESSAGE-----\n\nhQEMA\n", "pgp rule:pgp"),
        (pgp, "pgp rule:pgp"),
        (pdf, "pdf infer"),
        (png, "png infer"),
        (zip, "zip infer"),
        (gzip, "gz infer"),
        (ole, "ole rule:ole"),
        (bmp, "bmp infer"),
        (b"{\\rtf1\\ansi Hello}", "rtf infer"),
        (b"#!/bin/sh\necho hi\n", "sh infer"),
        (b"\x00\x01\x02\x03\x04\x05\x06\x07", "unknown none"),
        (b"\xFF\xD8\xFF", "jpg infer"),
    ];
    for (content, expected) in table {
        assert_eq!(label(content), *expected, "{:?}", String::from_utf8_lossy(content));
    }
}

#[test]
fn does_not_take_a_short_magic_number_for_a_type_in_text() {
    let table: &[(&str, &str)] = &[
        ("BM\n", "txt rule:text-utf8"),
        ("MZ-Liste vom Januar\n", "txt rule:text-utf8"),
        ("ID3 Meter\n", "txt rule:text-utf8"),
        ("GIFT VOUCHER 17\n", "txt rule:text-utf8"),
        ("0707010000 Lager\n", "txt rule:text-utf8"),
        ("see the %PDF files\n", "txt rule:text-utf8"),
        ("SQLite export\n", "txt rule:text-utf8"),
        ("UNABLE TO DELIVER\n", "txt rule:text-utf8"),
        ("UNB is missing\n", "txt rule:text-utf8"),
        ("ISAAC,NEWTON,1643\n", "txt rule:text-utf8"),
        ("ISA*00*too short\n", "txt rule:text-utf8"),
        ("MSH|not hl7|at all\n", "txt rule:text-utf8"),
        ("{1:F01SHORT}{2:I103}\n", "txt rule:text-utf8"),
        ("{not json}\n", "txt rule:text-utf8"),
        ("{\"a\":1", "txt rule:text-utf8"),
        ("<unknown> wrote: hello\n", "txt rule:text-utf8"),
        ("<3 you\n", "txt rule:text-utf8"),
        ("Hello, world\n", "txt rule:text-utf8"),
        ("id,name,amount\n", "txt rule:text-utf8"),
        ("12345\n", "txt rule:text-utf8"),
        ("\"quoted\"\n", "txt rule:text-utf8"),
    ];
    for (content, expected) in table {
        assert_eq!(label(content), *expected, "{content:?}");
    }
}

#[test]
fn a_cut_head_is_judged_by_what_is_there() {
    let array = format!("[{}", "{\"name\":\"Zoë\",\"n\":12.5},".repeat(200));
    for cut in 4000..4030 {
        assert_eq!(label_of_beginning(&array.as_bytes()[..cut]), "json rule:json", "cut at {cut}");
    }
    let lines = "{\"id\":1,\"text\":\"ä\"}\n".repeat(300);
    for cut in 4000..4030 {
        assert_eq!(label_of_beginning(&lines.as_bytes()[..cut]), "ndjson rule:ndjson", "cut at {cut}");
    }
    let rows = "4711;Köln;12,50\n".repeat(300);
    for cut in 4000..4030 {
        assert_eq!(label_of_beginning(&rows.as_bytes()[..cut]), "csv rule:csv", "cut at {cut}");
    }
    assert_eq!(label_of_beginning("<Order><Line>"), "xml rule:xml");
    assert_eq!(label_of_beginning(&PAIN001.as_bytes()[..150]), "iso20022 rule:iso20022");
    // Mid-character in a plain text: three bytes of the four of an emoji.
    assert_eq!(label_of_beginning(&"So long 🚀".as_bytes()[..11]), "txt rule:text-utf8");
    // No bytes known although the file is not empty.
    assert_eq!(label_of_beginning(b""), "unknown none");
}

#[test]
fn looks_at_the_first_4_kib_only() {
    let mut content = "word ".repeat(1000).into_bytes();
    content.truncate(EDGE_BYTES);
    content.extend_from_slice(&[0; 100]);
    assert_eq!(label(&content), "txt rule:text-utf8");
}

#[test]
fn noise_is_told_from_what_has_a_pattern() {
    for seed in 0..500 {
        let mut noise = [0; EDGE_BYTES];
        StdRng::seed_from_u64(seed).fill(&mut noise[..]);
        // What begins like something is that.
        noise[0] = 0;
        assert_eq!(label_of_beginning(noise), "unknown rule:noise", "seed {seed}");
        assert_eq!(label(&noise[..1000]), "unknown none", "too little to tell");
        // One byte in eight is a zero, as in most binary formats.
        noise.iter_mut().step_by(8).for_each(|byte| *byte = 0);
        assert_eq!(label_of_beginning(noise), "unknown none", "seed {seed}");
    }
}

#[test]
fn a_table_tells_how_many_of_its_records_agree() {
    let mut content = "a,b,c,d\n".repeat(19);
    content.push_str("total,38\n");
    let found = by_rules(content.as_bytes(), content.len() as u64);
    assert_eq!((found.label.as_str(), found.score_permille), ("csv", Some(950)));
    assert_eq!(found.mime, "text/csv");
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    assert_eq!(label_of_beginning("[".repeat(EDGE_BYTES)), "json rule:json");
}

/// Beginnings that lead into every parser, ours and the library's.
fn beginnings() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<Vec<u8>> = [
        EDIFACT.as_bytes(),
        X12.as_bytes(),
        X12_UNPADDED.as_bytes(),
        MT103.as_bytes(),
        HL7.as_bytes(),
        PAIN001.as_bytes(),
        WRAPPED_CAMT.as_bytes(),
        CSV_QUOTED.as_bytes(),
        b"\xFF\xFE<\0a\0",
        b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x3E\0\x03\0\xFE\xFF\x09\0\x06\0",
        b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x13\0\0\0[Content_Types].xml",
        b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0mimetypeapplication/vnd.oasis",
        b"\x50\x2A\x4D\x18\0\0\0\0\x50\x2A\x4D\x18",
        b"\0\0\0\x20ftypmif1\0\0\0\0heic",
        b"\x1A\x45\xDF\xA3\x93\x42\x82\x88matroska",
        b"dey\n",
        b"\x85\x01\x0C\x03",
        b"<!-- <?xml",
        b"{\"a\":\"\\u",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    (
        proptest::sample::select(known),
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 0..512),
    )
        .prop_map(|(mut bytes, keep, tail)| {
            bytes.truncate(keep.index(bytes.len() + 1));
            bytes.extend(tail);
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn never_panics_and_always_answers(head in prop_oneof![beginnings(), prop::collection::vec(any::<u8>(), 0..5000)], more: u32) {
        let found = by_rules(&head, head.len() as u64 + u64::from(more));
        prop_assert!(!found.mime.is_empty() && found.mime.contains('/'));
        prop_assert!(!found.label.is_empty() && !found.found_by.is_empty());
    }

    #[test]
    fn valid_json_is_never_called_anything_else(numbers in prop::collection::vec(any::<i32>(), 0..50), text in "[a-zA-Z ,;|{}<>]{0,40}") {
        let document = serde_json::json!({"text": text, "numbers": numbers}).to_string();
        prop_assert_eq!(label(&document), "json rule:json");
    }

    #[test]
    fn tables_are_found_whatever_the_delimiter(
        rows in prop::collection::vec(prop::collection::vec("[a-z0-9]{1,8}", 3), 2..20),
        delimiter in proptest::sample::select(vec![",", ";", "\t", "|"]),
    ) {
        let content: String = rows.iter().map(|row| row.join(delimiter) + "\n").collect();
        prop_assert!(label(&content).ends_with("rule:csv"));
    }
}
