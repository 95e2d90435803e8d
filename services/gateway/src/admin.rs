//! What administrators and operators do, the same behind GraphQL and the terminal's gRPC. Whoever calls has checked the
//! permission; auth- and security-service check it again.

use super::{Gateway, session::Session};
use fafnir_platform::{Refusal, audit::Action};
use fafnir_proto::{
    id::UserId,
    reason::Reason,
    subject,
    v1::{self, PlaybackAction},
};
use fafnir_rules::limits::{NEWS_BPS, PLAYBACK_SPEED_MILLI};
use prost::Message as _;
use std::time::Duration;
use tonic::Status;

/// Steps of a recorded market at a time.
const PLAYBACK_STEPS_MAX: u32 = 100_000;
/// How long the answer of a recorded market may take.
const PLAYBACK_ANSWER_MAX: Duration = Duration::from_secs(2);

impl Gateway {
    /// Roles and permissions of a user; both empty for an unknown one.
    pub async fn permissions_of(&self, _: &Session, user_id: String) -> Result<v1::PermissionsReply, Status> {
        let mut security = self.ctx.clients.security(&self.ctx.system());
        Ok(security.permissions(v1::PermissionsRequest { user_id }).await?.into_inner())
    }

    /// Gives or takes a role.
    pub async fn change_role(
        &self,
        session: &Session,
        request: v1::GrantRequest,
        grant: bool,
    ) -> Result<(), Status> {
        let user = UserId::parse(&request.user_id).ok();
        if grant {
            // Nobody holds a role without being somebody: a typing error is told, not stored.
            let profile = v1::GetProfileRequest { user_id: request.user_id.clone() };
            self.ctx.clients.user(&self.ctx.system()).get_profile(profile).await?;
        }
        let mut security = self.ctx.clients.security(&session.caller());
        if grant {
            security.grant(request).await?
        } else {
            security.revoke(request).await?
        };
        if let Some(user) = user {
            self.sessions.forget_permissions(user).await;
        }
        Ok(())
    }

    /// The platform at a glance.
    pub async fn dashboard(&self) -> Result<v1::DashboardReply, Status> {
        let (caller, clients) = (self.ctx.system(), &self.ctx.clients);
        let (mut engine, mut order, mut portfolio) =
            (clients.engine(&caller), clients.order(&caller), clients.portfolio(&caller));
        let (mut auth, mut stock, mut security) =
            (clients.auth(&caller), clients.stock(&caller), clients.security(&caller));
        let (engine, order, portfolio, users, listed, newest) = tokio::join!(
            engine.status(v1::Empty {}),
            order.status(v1::Empty {}),
            portfolio.status(v1::Empty {}),
            auth.figures(v1::Empty {}),
            stock.list_instruments(v1::Empty {}),
            security.audit_log(v1::AuditLogRequest { limit: 1, ..Default::default() })
        );
        let (engine, order, portfolio) = (engine?.into_inner(), order?.into_inner(), portfolio?.into_inner());
        let listed = listed?.into_inner().instruments;
        let slowest = engine.followers.iter().map(|f| f.position).min().unwrap_or(engine.position);
        Ok(v1::DashboardReply {
            time_us: self.ctx.clock.now_us(),
            users: Some(users?.into_inner()),
            open_orders: order.open_orders,
            trades: engine.trades,
            accounts: engine.accounts,
            journal_seq: engine.journal_seq,
            settled: portfolio.settled,
            dead_letters: portfolio.dead_letters,
            behind: engine.position.saturating_sub(slowest),
            cancel_only: engine.cancel_only,
            notice: engine.notice,
            symbols: listed.len() as u64,
            halted: listed.into_iter().filter(|i| i.state() != v1::TradingState::Open).collect(),
            audit_seq: newest?.into_inner().rows.first().map_or(0, |row| row.seq),
        })
    }

    /// Changes what a symbol does.
    pub async fn set_trading_state(
        &self,
        session: &Session,
        request: v1::SetTradingStateRequest,
    ) -> Result<v1::Instrument, Status> {
        let (symbol, state) = (request.symbol.clone(), request.state().name());
        let mut stock = self.ctx.clients.stock(&self.ctx.system());
        let act = stock.set_trading_state(request);
        Ok(self.audited(session, Action::MarketState, symbol, state, act).await?.into_inner())
    }

    /// Changes the width of a symbol's volatility band.
    pub async fn set_band(
        &self,
        session: &Session,
        request: v1::SetVolatilityBandRequest,
    ) -> Result<v1::Instrument, Status> {
        let (symbol, detail) = (request.symbol.clone(), format!("{} bp", request.volatility_band_bps));
        let mut stock = self.ctx.clients.stock(&self.ctx.system());
        let act = stock.set_volatility_band(request);
        Ok(self.audited(session, Action::MarketBand, symbol, detail, act).await?.into_inner())
    }

    /// Tells the simulated market something about a symbol.
    pub async fn news(&self, session: &Session, news: v1::News) -> Result<(), Status> {
        let (symbol, detail) = (news.symbol.clone(), format!("{} bp", news.change_bps));
        let act = async {
            if !NEWS_BPS.contains(&news.change_bps) || news.change_bps == 0 {
                let (low, high) = (NEWS_BPS.start(), NEWS_BPS.end());
                let sentence = format!("change_bps must be {low} to {high} and not 0");
                return Err(Status::from(Refusal::invalid(Reason::NEWS_OUT_OF_RANGE, sentence)));
            }
            let request = v1::SymbolRequest { symbol: news.symbol.clone() };
            let mut stock = self.ctx.clients.stock(&self.ctx.system());
            let symbol = stock.get_instrument(request).await?.into_inner().symbol;
            let subject = subject::news(&symbol);
            let news = v1::News { symbol, time_us: self.ctx.clock.now_us(), ..news };
            self.bus.publish(subject, news.encode_to_vec().into()).await.map_err(Status::from)?;
            Ok(tonic::Response::new(()))
        };
        self.audited(session, Action::MarketNews, symbol, detail, act).await?;
        Ok(())
    }

    /// Asks a recorded market to pause, to go on, or how far it is.
    pub async fn playback(
        &self,
        session: &Session,
        request: v1::PlaybackRequest,
    ) -> Result<v1::PlaybackReply, Status> {
        let action = request.action();
        let detail = match action {
            PlaybackAction::Unspecified => return Ok(self.ask_playback(request).await?.into_inner()),
            PlaybackAction::Pause => "pause".to_owned(),
            PlaybackAction::Resume => "resume".to_owned(),
            PlaybackAction::Step => format!("{} steps", request.steps),
            PlaybackAction::Speed => format!("speed {}/1000", request.speed_milli),
        };
        let act = async {
            let out_of_range = |sentence| Refusal::invalid(Reason::PLAYBACK_OUT_OF_RANGE, sentence);
            if action == PlaybackAction::Step && !(1..=PLAYBACK_STEPS_MAX).contains(&request.steps) {
                let sentence = format!("steps must be 1 to {PLAYBACK_STEPS_MAX}");
                return Err(Status::from(out_of_range(sentence)));
            }
            if action == PlaybackAction::Speed && !PLAYBACK_SPEED_MILLI.contains(&request.speed_milli) {
                let (low, high) = (PLAYBACK_SPEED_MILLI.start(), PLAYBACK_SPEED_MILLI.end());
                return Err(Status::from(out_of_range(format!("speed_milli must be {low} to {high}"))));
            }
            self.ask_playback(request).await
        };
        Ok(self.audited(session, Action::MarketPlayback, "recording", detail, act).await?.into_inner())
    }

    async fn ask_playback(
        &self,
        request: v1::PlaybackRequest,
    ) -> Result<tonic::Response<v1::PlaybackReply>, Status> {
        let asked = self.bus.client().request(subject::PLAYBACK, request.encode_to_vec().into());
        let none = || Refusal::precondition(Reason::NO_RECORDING, "no recorded market is played here");
        match tokio::time::timeout(PLAYBACK_ANSWER_MAX, asked).await {
            Ok(Ok(message)) => v1::PlaybackReply::decode(message.payload)
                .map(tonic::Response::new)
                .map_err(|e| Status::internal(format!("a recorded market's answer: {e}"))),
            Ok(Err(_)) => Err(none().into()),
            Err(_) => Err(fafnir_platform::Error::unavailable("the recorded market does not answer").into()),
        }
    }

    /// Cancels every open order of everybody in a symbol.
    pub async fn cancel_symbol(
        &self,
        session: &Session,
        request: v1::SymbolOrdersRequest,
    ) -> Result<v1::CancelAllReply, Status> {
        let symbol = request.symbol.clone();
        let mut order = self.ctx.clients.order(&self.ctx.system());
        let act = order.cancel_symbol(request);
        Ok(self.audited(session, Action::MarketCancel, symbol, "", act).await?.into_inner())
    }
}
