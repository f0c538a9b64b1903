//! Every path of the gateway.
//!
//! Owns the routes and what they share: who may call, arguments, body limits, JSON for what no route
//! answers. Must never speak to a service without a deadline.

mod live;
mod recordings;
mod request;
mod shows;
mod stream;

use crate::{
    app::App,
    auth::{self, Carrier, Gate, Scope},
    meters,
    refusal::Refusal,
    studio, ws,
};
use aircheck_core::code::Code;
use aircheck_runtime::{health::Health, ops};
use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::Response,
    routing::{delete, get, post, put},
};
use std::sync::Arc;

/// All routes.
pub(crate) fn router(app: Arc<App>, health: Health) -> Router {
    let api = api(&app).layer(map_response(uncached));
    Router::new()
        .merge(api)
        .merge(studio::router())
        .route("/ws/stream", get(ws::stream))
        .route("/live/{show_id}", get(live::listen))
        .with_state(app)
        .merge(ops::router(health))
        .fallback(async || Refusal::new(Code::NotFound, "There is no such path."))
        .method_not_allowed_fallback(async || {
            Refusal::new(Code::BadMessage, "This path does not know the method.")
                .with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(map_response(meters::responded))
}

/// The calls, by what a caller has to be granted.
fn api(app: &Arc<App>) -> Router<Arc<App>> {
    let guarded = |scope, carrier| {
        let app = app.clone();
        from_fn_with_state(
            Gate {
                app,
                scope,
                carrier,
            },
            auth::guard,
        )
    };
    let publish = Router::new()
        .route("/api/stream/stop", post(stream::stop))
        .route("/api/recording/start", post(stream::start_recording))
        .route("/api/recording/stop", post(stream::stop_recording))
        .route("/api/shows/{show_id}/markers", post(shows::mark))
        .route_layer(guarded(Scope::Publish, Carrier::Header));
    let read = Router::new()
        .route("/api/stream/status", get(stream::status))
        .route("/api/shows", get(shows::list))
        .route(
            "/api/shows/{show_id}/recordings",
            get(recordings::list_of_show),
        )
        .route("/api/recordings", get(recordings::list))
        .route("/api/recordings/{id}", get(recordings::one))
        .route_layer(guarded(Scope::Read, Carrier::Header));
    let links = Router::new()
        .route("/api/recordings/{id}/download", get(recordings::download))
        .route_layer(guarded(Scope::Read, Carrier::HeaderOrQuery));
    let admin = Router::new()
        .route("/api/shows/{show_id}", put(shows::replace))
        .route("/api/recordings/{id}", delete(recordings::delete))
        .route("/api/recordings/{id}/repair", post(recordings::repair))
        .route_layer(guarded(Scope::Admin, Carrier::Header));
    publish.merge(read).merge(links).merge(admin)
}

/// What was true a second ago helps nobody.
async fn uncached(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
