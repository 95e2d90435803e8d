//! `fafnir trade`: opens the terminal.

use crate::{
    args::{Global, Trade},
    output::{Error, Exit, Out, Result},
};

pub async fn trade(global: &Global, args: &Trade, out: Out) -> Result {
    let _ = (global, args, out);
    Err(Error::new(Exit::Failure, "no terminal in this build"))
}
