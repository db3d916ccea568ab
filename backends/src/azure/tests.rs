use super::*;
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The sum bit by bit, from the definition: reflected polynomial, all ones before and after.
fn bit_by_bit(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0x9A6C_9329_AC4B_C9B5;
            }
        }
    }
    !crc
}

#[test]
fn the_sum_is_the_one_that_azure_computes() {
    // From the tests of Microsoft's client for C++.
    assert_eq!(STANDARD.encode(crc64(b"")), "AAAAAAAAAAA=");
    assert_eq!(STANDARD.encode(crc64(b"Hello Azure!")), "DtjZpL9/o8c=");
    // The check value of CRC-64/NVME.
    assert_eq!(crc64(b"123456789"), 0xAE8B_1486_0A79_9888_u64.to_le_bytes());
    let long: Vec<u8> = (0..100_003_u32).map(|i| u8::try_from(i % 251 * i % 241).unwrap()).collect();
    for length in [1, 7, 8, 127, 128, 4096, 100_003] {
        assert_eq!(crc64(&long[..length]), bit_by_bit(&long[..length]).to_le_bytes(), "{length}");
    }
}
