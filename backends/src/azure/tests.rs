use super::{sas::Scope, signer::Signer, *};
use crate::secrets::{Secret, SecretError};
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

/// Gives out a new secret each time, or none any more.
struct Changing(std::sync::Mutex<u32>);

#[async_trait::async_trait]
impl SecretStore for Changing {
    async fn resolve(&self, reference: &str) -> Result<Secret, SecretError> {
        let mut times = self.0.lock().unwrap();
        *times += 1;
        match *times {
            1..=2 => Ok(Secret::new(STANDARD.encode(format!("key {times}")).into_bytes())),
            _ => Err(SecretError::Unavailable { reference: reference.to_owned(), why: "down".to_owned() }),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_signature_is_made_anew_before_it_expires() {
    let secrets = Arc::new(Changing(std::sync::Mutex::new(0)));
    let scope = Scope::Container("c".to_owned());
    let signer = Signer::with_key("account", "env:KEY", scope, false, secrets);
    let first = signer.query().await.unwrap();
    let text = first.expose_str().unwrap();
    assert!(text.contains("sr=c") && text.contains("sp=racwdl") && text.contains("spr=https&"), "{text}");
    tokio::time::advance(Duration::from_secs(1700)).await;
    assert!(signer.query().await.unwrap() == first);
    tokio::time::advance(Duration::from_secs(200)).await;
    let second = signer.query().await.unwrap();
    assert!(second != first);
    // While the secret store is down, what is still good is used; after that there is nothing.
    tokio::time::advance(Duration::from_secs(2000)).await;
    assert!(signer.query().await.unwrap() == second);
    tokio::time::advance(Duration::from_secs(1700)).await;
    let error = signer.query().await.unwrap_err();
    assert!(error.contains("env:KEY") && !error.contains("sig="), "{error}");
    // Something else than a SAS is not put on a request.
    let signer = Signer::with_sas("env:KEY", Arc::new(Changing(std::sync::Mutex::new(0))));
    assert!(signer.query().await.unwrap_err().contains("is not a SAS"));
}
