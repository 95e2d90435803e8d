//! `fafnir account list|open|deposit|withdraw|transfer|transactions`.

use crate::{
    args::{
        Account, AccountClose, AccountDeposit, AccountOpen, AccountTransactions, AccountTransfer,
        AccountWithdraw, Global, Where,
    },
    client::{Client, ids, key_of, keyed},
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::Reason,
    v1::{
        self, AccountRequest, AccountType, CreateAccountRequest, DepositRequest, Empty, TransactionsRequest,
        TransferRequest, WithdrawRequest,
    },
};
use fafnir_rules::money::{format_grouped, format_micros, parse_micros};
use fafnir_services::platform::clock::rfc3339;
use serde_json::{Value, json};

/// What makes a movement of money that had no answer safe to send again.
const KEY_OPTION: &str = "--idempotency-key";

pub async fn account(global: &Global, command: &Account, out: Out) -> Result {
    match command {
        Account::List(at) => list(global, at, out).await,
        Account::Open(args) => open(global, args, out).await,
        Account::Close(args) => close(global, args, out).await,
        Account::Deposit(args) => deposit(global, args, out).await,
        Account::Withdraw(args) => withdraw(global, args, out).await,
        Account::Transfer(args) => transfer(global, args, out).await,
        Account::Transactions(args) => transactions(global, args, out).await,
    }
}

async fn list(global: &Global, at: &Where, out: Out) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    let accounts = accounts(&mut client).await?;
    out.data(&json!(accounts.iter().map(account_json).collect::<Vec<_>>()), || accounts_table(&accounts));
    Ok(())
}

async fn open(global: &Global, args: &AccountOpen, out: Out) -> Result {
    let kind = match args.r#type.to_ascii_lowercase().as_str() {
        "investment" => AccountType::Investment,
        "savings" => AccountType::Savings,
        "chequing" => AccountType::Chequing,
        other => {
            return Err(Error::usage(format!("type {other:?} must be one of investment, savings, chequing")));
        }
    };
    let mut client = Client::signed_in(global, &args.at).await?;
    let key = key_of(args.idempotency_key.as_ref());
    let request = client.request(CreateAccountRequest {
        r#type: kind.into(),
        currency: args.currency.to_uppercase(),
        idempotency_key: key.clone(),
        ..Default::default()
    });
    let account = keyed(client.terminal.create_account(request).await, KEY_OPTION, &key)?;
    out.data(&account_json(&account), || accounts_table(std::slice::from_ref(&account)));
    Ok(())
}

async fn close(global: &Global, args: &AccountClose, out: Out) -> Result {
    if !args.yes {
        return Err(Error::usage(
            "a closed account does not open again, and what is left in it goes to the house",
        )
        .hint("with --yes it is done"));
    }
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = ids::account(&mut client, &args.account_id).await?;
    let request = client.request(AccountRequest { account_id, ..Default::default() });
    let account = client.terminal.close_account(request).await?.into_inner();
    out.data(&account_json(&account), || format!("account {} is closed\n", account.id));
    Ok(())
}

async fn deposit(global: &Global, args: &AccountDeposit, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let (account_id, currency) = named(&mut client, &args.account_id).await?;
    let key = key_of(args.idempotency_key.as_ref());
    let request = client.request(DepositRequest {
        account_id,
        amount_micros: amount(&args.amount)?,
        currency,
        idempotency_key: key.clone(),
        ..Default::default()
    });
    let balance = keyed(client.terminal.deposit(request).await, KEY_OPTION, &key)?.new_balance_micros;
    print_balance(balance, out);
    Ok(())
}

async fn withdraw(global: &Global, args: &AccountWithdraw, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let (account_id, currency) = named(&mut client, &args.account_id).await?;
    let key = key_of(args.idempotency_key.as_ref());
    let request = client.request(WithdrawRequest {
        account_id,
        amount_micros: amount(&args.amount)?,
        currency,
        idempotency_key: key.clone(),
        ..Default::default()
    });
    let balance = keyed(client.terminal.withdraw(request).await, KEY_OPTION, &key)?.new_balance_micros;
    print_balance(balance, out);
    Ok(())
}

fn print_balance(micros: i64, out: Out) {
    out.data(&json!({"newBalance": format_micros(micros)}), || {
        format!("balance {}\n", format_grouped(micros, 6))
    });
}

async fn transfer(global: &Global, args: &AccountTransfer, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let (from_account_id, currency) = named(&mut client, &args.from_account_id).await?;
    let to_account_id = ids::account(&mut client, &args.to_account_id).await?;
    let key = key_of(args.idempotency_key.as_ref());
    let request = client.request(TransferRequest {
        from_account_id,
        to_account_id,
        amount_micros: amount(&args.amount)?,
        currency,
        idempotency_key: key.clone(),
        ..Default::default()
    });
    keyed(client.terminal.transfer(request).await, KEY_OPTION, &key)?;
    out.data(&json!({"transferred": args.amount}), || format!("transferred {}\n", args.amount));
    Ok(())
}

async fn transactions(global: &Global, args: &AccountTransactions, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = ids::account(&mut client, &args.account_id).await?;
    let request = client.request(TransactionsRequest { account_id, limit: args.limit, ..Default::default() });
    let list = client.terminal.transactions(request).await?.into_inner().transactions;
    let kind =
        |t: &v1::Transaction| t.r#type().as_str_name().trim_start_matches("TRANSACTION_TYPE_").to_owned();
    let document: Vec<_> = list
        .iter()
        .map(|t| json!({"id": t.id, "type": kind(t), "amount": format_micros(t.amount_micros), "description": t.description, "referenceId": t.reference_id, "createdAt": rfc3339(t.created_us)}))
        .collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = list
            .iter()
            .map(|t| {
                vec![
                    rfc3339(t.created_us),
                    kind(t),
                    format_grouped(t.amount_micros, 6),
                    t.description.clone(),
                ]
            })
            .collect();
        table(&["TIME", "TYPE", ">AMOUNT", "DESCRIPTION"], &rows)
    });
    Ok(())
}

async fn accounts(client: &mut Client) -> Result<Vec<v1::Account>> {
    let request = client.request(Empty {});
    Ok(client.terminal.accounts(request).await?.into_inner().accounts)
}

/// An open account of the caller's, and its currency.
async fn named(client: &mut Client, text: &str) -> Result<(String, String)> {
    let accounts = accounts(client).await?;
    let id = ids::account_among(&accounts, text)?;
    let found = accounts.into_iter().find(|a| a.id == id).map(|a| (a.id, a.currency));
    found.ok_or_else(|| {
        Error::new(Exit::Precondition, format!("account {id:?} is not one of yours"))
            .code(Reason::ACCOUNT_NOT_FOUND)
            .hint("`fafnir account list` shows them")
    })
}

fn amount(text: &str) -> Result<i64> {
    parse_micros(text).map_err(|e| super::order::decimal_error("amount", Reason::AMOUNT_MALFORMED, text, e))
}

pub fn account_json(a: &v1::Account) -> Value {
    json!({
        "id": a.id, "accountNumber": a.account_number, "type": kind(a), "currency": a.currency,
        "balance": format_micros(a.balance_micros), "held": format_micros(a.held_micros),
        "available": format_micros(a.available_micros), "createdAt": rfc3339(a.created_us),
    })
}

fn kind(a: &v1::Account) -> String {
    a.r#type().as_str_name().trim_start_matches("ACCOUNT_TYPE_").to_owned()
}

pub fn accounts_table(accounts: &[v1::Account]) -> String {
    let rows: Vec<_> = accounts
        .iter()
        .map(|a| {
            vec![
                a.id.clone(),
                kind(a),
                a.currency.clone(),
                format_grouped(a.balance_micros, 6),
                format_grouped(a.held_micros, 6),
                format_grouped(a.available_micros, 6),
            ]
        })
        .collect();
    table(&["ACCOUNT", "TYPE", "CURRENCY", ">BALANCE", ">HELD", ">AVAILABLE"], &rows)
}
