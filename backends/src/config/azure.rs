//! Keys that say which container of Azure Blob is meant and how to log in there; the same for `[backends.blob]` and for a
//! destination. Nothing here needs the client, so that a config is checked in any build.

use serde::{Deserialize, Serialize};

/// How to log in with Entra.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AzureIdentity {
    /// The managed identity of the machine or app service; `client_id` chooses among several.
    Managed,
    /// A Kubernetes service account (workload identity): `AZURE_CLIENT_ID`, `AZURE_TENANT_ID` and
    /// `AZURE_FEDERATED_TOKEN_FILE`, as the cluster sets them.
    Workload,
    /// Whoever is logged in with the Azure command line tools. For trying things out.
    DeveloperTools,
}

/// The sum that goes with each block, for the service to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AzureBlockSum {
    /// CRC-64/NVME: costs next to nothing. Azure computes it for every block anyway.
    #[default]
    Crc64,
    /// MD5: for a stand-in of Azure that knows no CRC-64 or, as Azurite, computes it slowly.
    Md5,
}

/// The keys, as they stand in a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureKeys {
    /// Storage account.
    pub account: Option<String>,
    /// Blob endpoint, if it is not the usual one of the account.
    pub endpoint: Option<String>,
    /// Container.
    pub container: String,
    /// Entra login.
    pub identity: Option<AzureIdentity>,
    /// Client id of the identity.
    pub client_id: Option<String>,
    /// Secret reference of a SAS.
    pub sas: Option<String>,
    /// Secret reference of an account key.
    pub account_key: Option<String>,
    /// Sum of each block.
    pub block_sum: AzureBlockSum,
}

/// A container and a login, complete and free of contradictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzurePlace {
    /// URL of the blob endpoint, without a slash at its end.
    pub endpoint: String,
    /// Container.
    pub container: String,
    /// Login.
    pub login: AzureLogin,
    /// Sum of each block.
    pub block_sum: AzureBlockSum,
}

/// How requests are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureLogin {
    /// By Entra.
    Identity {
        /// Which way.
        identity: AzureIdentity,
        /// Which identity, where there are several.
        client_id: Option<String>,
    },
    /// By a SAS: its secret reference.
    Sas(String),
    /// By short-lived SAS that are made with an account key.
    AccountKey {
        /// Name of the account.
        account: String,
        /// Secret reference of the key.
        reference: String,
    },
}

/// What is wrong with the keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}; {remedy}")]
pub struct AzureMistake {
    /// Which key.
    pub key: &'static str,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

fn mistake(key: &'static str, what: impl Into<String>, remedy: &'static str) -> AzureMistake {
    AzureMistake { key, what: what.into(), remedy }
}

impl AzureKeys {
    /// The place they name.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub fn place(&self) -> Result<AzurePlace, AzureMistake> {
        Ok(AzurePlace {
            endpoint: self.blob_endpoint()?,
            container: self.checked_container()?,
            login: self.login()?,
            block_sum: self.block_sum,
        })
    }

    fn blob_endpoint(&self) -> Result<String, AzureMistake> {
        let endpoint = match (&self.endpoint, &self.account) {
            (Some(endpoint), _) => endpoint.trim_end_matches('/').to_owned(),
            (None, Some(account)) if is_account(account) => {
                format!("https://{account}.blob.core.windows.net")
            }
            (None, Some(account)) => {
                let what = format!("{account:?} is not the name of a storage account");
                return Err(mistake("account", what, "use 3 to 24 lower-case letters and digits"));
            }
            (None, None) => {
                return Err(mistake("account", "no storage account is named", "set account, or endpoint"));
            }
        };
        if endpoint.contains(['?', '#', '@']) {
            let what = "it holds more than scheme, host, port and path";
            return Err(mistake("endpoint", what, "put a SAS into a secret and set sas to its reference"));
        }
        if endpoint.starts_with("http://") && self.identity.is_some() {
            let what = format!("{endpoint} is not encrypted, and Entra tokens go over https only");
            return Err(mistake("endpoint", what, "use https"));
        }
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let what = format!("{endpoint:?} is not an address");
            return Err(mistake("endpoint", what, "use a URL such as https://ACCOUNT.blob.core.windows.net"));
        }
        Ok(endpoint)
    }

    fn checked_container(&self) -> Result<String, AzureMistake> {
        let name = &self.container;
        let ends_well = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let right = (3..=63).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && ends_well(name.chars().next())
            && ends_well(name.chars().last())
            && !name.contains("--");
        if right {
            return Ok(name.clone());
        }
        Err(mistake(
            "container",
            if name.is_empty() {
                "no container is named".to_owned()
            } else {
                format!("{name:?} is not the name of a container")
            },
            "use 3 to 63 lower-case letters, digits and single hyphens",
        ))
    }

    fn login(&self) -> Result<AzureLogin, AzureMistake> {
        for (key, reference) in [("sas", &self.sas), ("account_key", &self.account_key)] {
            if let Some(reference) = reference
                && !["env:", "file:", "vault:"].iter().any(|scheme| reference.starts_with(scheme))
            {
                // The value is not repeated: it may be the secret itself.
                let remedy = "secrets are never written into the config: use \"env:NAME\", \"file:PATH\" or \"vault:PATH#KEY\"";
                return Err(mistake(key, "it is not a secret reference", remedy));
            }
        }
        if self.client_id.is_some() && self.identity.is_none() {
            return Err(mistake("client_id", "it needs an identity", "set identity too, or remove it"));
        }
        match (self.identity, &self.sas, &self.account_key) {
            (Some(identity), None, None) => {
                Ok(AzureLogin::Identity { identity, client_id: self.client_id.clone() })
            }
            (None, Some(sas), None) => Ok(AzureLogin::Sas(sas.clone())),
            (None, None, Some(key)) => match &self.account {
                Some(account) => {
                    Ok(AzureLogin::AccountKey { account: account.clone(), reference: key.clone() })
                }
                None => Err(mistake("account", "an account key is of no use without it", "set account")),
            },
            (None, None, None) => Err(mistake(
                "identity",
                "there is no way to log in",
                "set one of identity (\"managed\", \"workload\", \"developer_tools\"), sas and account_key",
            )),
            (Some(_), ..) | (None, Some(_), Some(_)) => Err(mistake(
                "identity",
                "there is more than one way to log in",
                "set only one of identity, sas and account_key",
            )),
        }
    }
}

fn is_account(name: &str) -> bool {
    (3..=24).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> AzureKeys {
        AzureKeys {
            account: Some("acme".to_owned()),
            container: "uploads".to_owned(),
            sas: Some("env:SAS".to_owned()),
            ..AzureKeys::default()
        }
    }

    #[test]
    fn an_account_has_its_usual_endpoint() {
        let place = keys().place().unwrap();
        assert_eq!(place.endpoint, "https://acme.blob.core.windows.net");
        assert_eq!(place.login, AzureLogin::Sas("env:SAS".to_owned()));
        let other = AzureKeys { endpoint: Some("http://127.0.0.1:10000/acme/".to_owned()), ..keys() };
        assert_eq!(other.place().unwrap().endpoint, "http://127.0.0.1:10000/acme");
    }

    #[test]
    fn mistakes_name_the_key_and_the_remedy() {
        let with = |change: &dyn Fn(&mut AzureKeys)| {
            let mut keys = keys();
            change(&mut keys);
            keys.place().unwrap_err()
        };
        for (error, key) in [
            (with(&|k| k.account = None), "account"),
            (with(&|k| k.account = Some("Acme!".to_owned())), "account"),
            (with(&|k| k.container = String::new()), "container"),
            (with(&|k| k.container = "Up_loads".to_owned()), "container"),
            (with(&|k| k.sas = None), "identity"),
            (with(&|k| k.identity = Some(AzureIdentity::Managed)), "identity"),
            (with(&|k| k.account_key = Some("env:KEY".to_owned())), "identity"),
            (with(&|k| k.client_id = Some("x".to_owned())), "client_id"),
            (with(&|k| k.endpoint = Some("acme.example".to_owned())), "endpoint"),
            (with(&|k| k.endpoint = Some("https://acme.example/?sig=x".to_owned())), "endpoint"),
        ] {
            assert_eq!(error.key, key, "{error}");
            assert!(!error.remedy.is_empty());
        }
        let secret = with(&|k| k.sas = Some("sv=2024&sig=hunter2".to_owned()));
        assert!(!secret.to_string().contains("hunter2"), "{secret}");
        let plain = with(&|k| {
            k.sas = None;
            k.identity = Some(AzureIdentity::Managed);
            k.endpoint = Some("http://acme.example".to_owned());
        });
        assert_eq!(plain.key, "endpoint");
    }
}
