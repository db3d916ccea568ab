//! One module for each group of commands.

pub(crate) mod account;
pub(crate) mod audit;
pub(crate) mod config;
pub(crate) mod detect;
pub(crate) mod hostkey;
pub(crate) mod inbox;
pub(crate) mod open;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod uploads;
