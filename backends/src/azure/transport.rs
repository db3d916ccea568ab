//! The last step of a request: here, below everything that logs, it gets its SAS, and errors lose it again.

use super::{failure::said, signer::Signer};
use async_trait::async_trait;
use azure_core::{
    Error,
    error::ErrorKind,
    http::{AsyncRawResponse, HttpClient, HttpClientOptions, Request, StatusCode, new_http_client},
};
use std::sync::Arc;

/// A client that signs.
#[derive(Debug)]
pub(super) struct Signed {
    inner: Arc<dyn HttpClient>,
    signer: Option<Signer>,
}

impl Signed {
    pub(super) fn new(signer: Option<Signer>) -> Self {
        let plain = HttpClientOptions { automatic_decompression: false };
        Self { inner: new_http_client(Some(plain)), signer }
    }
}

#[async_trait]
impl HttpClient for Signed {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let Some(signer) = &self.signer else { return self.inner.execute_request(request).await };
        let query = signer.query().await.map_err(|e| Error::with_message(ErrorKind::Credential, e))?;
        let mut signed = request.clone();
        let together = match (request.url().query(), query.expose_str().unwrap_or_default()) {
            (None | Some(""), sas) => sas.to_owned(),
            (Some(query), sas) => format!("{query}&{sas}"),
        };
        signed.url_mut().set_query(Some(&together));
        match self.inner.execute_request(&signed).await {
            Ok(response) => {
                if response.status() == StatusCode::Forbidden || response.status() == StatusCode::Unauthorized
                {
                    signer.forget().await;
                }
                Ok(response)
            }
            // The client names the whole URL in its errors.
            Err(error) => Err(Error::with_message(error.kind().clone(), said(&error))),
        }
    }
}
