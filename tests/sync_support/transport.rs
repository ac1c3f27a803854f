//! The transport to an emulator in the same process: no sockets, so that time can stand still.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyDataStream;
use onedrivefs::emulator::{Emulator, full_body};
use onedrivefs::graph::transport::{Lane, RawBody, RawSocket, Transport, TransportError};

/// Hands requests to the emulator.
#[derive(Debug, Clone)]
pub struct InProcess(pub Emulator);

impl InProcess {
    /// The answer to a request.
    pub async fn answer(&self, request: Request<Bytes>) -> Result<Response<RawBody>, TransportError> {
        let broken = |error: std::io::Error| TransportError::Broken(Arc::new(error));
        let answer = self.0.handle(request.map(full_body)).await;
        let answer = answer.map_err(|error| TransportError::Broken(Arc::new(error)))?;
        Ok(answer.map(|body| -> RawBody {
            Box::pin(BodyDataStream::new(body).map(move |chunk| chunk.map_err(broken)))
        }))
    }
}

impl Transport for InProcess {
    fn send(
        &self,
        request: Request<Bytes>,
        _lane: Lane,
    ) -> BoxFuture<'_, Result<Response<RawBody>, TransportError>> {
        Box::pin(self.answer(request))
    }

    fn switch(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'_, Result<Response<Option<RawSocket>>, TransportError>> {
        let answer = self.0.connect(&request.map(|_| ()));
        Box::pin(async move { Ok(answer.map(|socket| socket.map(|socket| Box::new(socket) as RawSocket))) })
    }
}
