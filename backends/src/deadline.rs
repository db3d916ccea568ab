//! A deadline around every call to a backend, the same way for all ports and adapters: [`crate::Backends::open`] wraps
//! each adapter once, so no adapter and no caller has to think of it. A call that takes longer is answered as
//! unavailable and counted; what an adapter had begun may still take effect, as with any unknown outcome.

mod blob;
mod credentials;
mod events;
#[cfg(test)]
pub(crate) mod faults;
mod queue;
mod secrets;
mod state;

use crate::observe::Counter;
use std::{future::Future, sync::Arc, time::Duration};

/// A port with a deadline on each of its calls.
pub(crate) struct Deadline<P: ?Sized> {
    inner: Arc<P>,
    limit: Duration,
    #[cfg(test)]
    faults: Option<Arc<faults::Faults>>,
}

impl<P: ?Sized> Deadline<P> {
    /// Around `inner`, at most `limit` a call.
    pub(crate) const fn new(inner: Arc<P>, limit: Duration) -> Self {
        Self {
            inner,
            limit,
            #[cfg(test)]
            faults: None,
        }
    }

    async fn call<T, E: Failure>(
        &self,
        limit: Duration,
        counter: Counter,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            return faults.around(within(limit, counter, call)).await;
        }
        within(limit, counter, call).await
    }
}

/// What a port's error says of the call that failed.
trait Failure: Sized {
    /// The call took too long.
    fn late(after: Duration) -> Self;
    /// Whether the backend is to blame, and not the caller.
    fn is_ours(&self) -> bool;
}

fn sentence(after: Duration) -> String {
    format!("no answer within {} s", after.as_secs_f32())
}

async fn within<T, E: Failure>(
    limit: Duration,
    counter: Counter,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let result = tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(E::late(limit)));
    if result.as_ref().is_err_and(Failure::is_ours) {
        counter.one();
    }
    result
}

/// Implements a port by passing each call on under the deadline.
macro_rules! deadlines {
    ($port:path, $error:ty, $counter:ident {
        $(async fn $name:ident(&self $(, $arg:ident: $type:ty)* $(,)?) -> $ok:ty $(, longer by $longer:ident)?;)*
    } $($rest:item)*) => {
        #[async_trait::async_trait]
        impl $port for $crate::deadline::Deadline<dyn $port> {
            $(async fn $name(&self $(, $arg: $type)*) -> Result<$ok, $error> {
                let limit = self.limit $( + $longer)?;
                self.call(limit, $crate::observe::Counter::$counter, self.inner.$name($($arg),*)).await
            })*
            $($rest)*
        }
    };
}
use deadlines;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::{Secret, SecretError, SecretStore};

    struct Stuck;

    #[async_trait::async_trait]
    impl SecretStore for Stuck {
        async fn resolve(&self, _: &str) -> Result<Secret, SecretError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_ends_is_answered_as_unavailable() {
        let store: Arc<dyn SecretStore> = Arc::new(Stuck);
        let store = Deadline::new(store, Duration::from_secs(3));
        let error = store.resolve("env:X").await.unwrap_err();
        assert!(matches!(error, SecretError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("no answer within 3 s"), "{error}");
    }
}
