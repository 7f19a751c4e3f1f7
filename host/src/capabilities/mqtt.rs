//! Outbound MQTT: `spin:mqtt` and `fermyon:spin/mqtt`, to the brokers that `allowed_outbound_hosts`
//! grants. The connections themselves: [`crate::storage::mqtt`].

use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::{Accessor, HasData, Linker, Resource, ResourceTable};

use crate::config::outbound_hosts::OutboundHosts;
use crate::guest::instance::InstanceState;
use crate::process::memory_budget::MemoryBudget;
use crate::storage::mqtt::{
    BrokerAddress, ComponentMqtt, Credentials, MqttConnection, MqttError, QoS, SCHEME,
};

mod generated {
    wasmtime::component::bindgen!({
        path: ["../wit/spin-mqtt", "../wit/fermyon-spin"],
        inline: "
            package spinfer:host;
            world mqtt {
                import spin:mqtt/mqtt@3.0.0;
                import fermyon:spin/mqtt@2.0.0;
            }
        ",
        world: "spinfer:host/mqtt",
        imports: {
            "fermyon:spin/mqtt.[static]connection.open": trappable,
            "fermyon:spin/mqtt.[drop]connection": trappable,
            "fermyon:spin/mqtt": async | trappable,
            default: trappable,
        },
        with: {
            "spin:mqtt/mqtt.connection": super::MqttHandle,
            "fermyon:spin/mqtt.connection": super::MqttHandle,
        },
    });
}

use generated::fermyon::spin::mqtt as fermyon;
use generated::spin::mqtt::mqtt as spin;

/// A guest's handle to a broker.
#[derive(Clone, Debug)]
pub struct MqttHandle {
    connection: Arc<MqttConnection>,
    memory: MemoryBudget,
}

/// The outbound MQTT state of an instance.
#[derive(Debug)]
pub struct MqttCtx {
    connections: Arc<ComponentMqtt>,
    memory: MemoryBudget,
}

impl MqttCtx {
    #[must_use]
    pub fn new(connections: Arc<ComponentMqtt>, memory: MemoryBudget) -> Self {
        Self { connections, memory }
    }
}

/// The outbound MQTT state of an instance, borrowed for one call.
#[derive(Debug)]
pub struct MqttView<'a> {
    pub ctx: &'a mut MqttCtx,
    pub allowed: &'a OutboundHosts,
    pub table: &'a mut ResourceTable,
}

/// Why a guest gets no connection.
enum OpenError {
    InvalidAddress,
    Failed(MqttError),
}

impl MqttView<'_> {
    fn open_handle(
        &mut self,
        address: &str,
        credentials: Credentials,
        keep_alive: u64,
    ) -> Result<Resource<MqttHandle>, OpenError> {
        let broker = BrokerAddress::parse(address).ok_or(OpenError::InvalidAddress)?;
        let BrokerAddress { host, port, .. } = &broker;
        if !self.allowed.allows(SCHEME, host, Some(*port)) {
            return Err(OpenError::Failed(MqttError::Connection(format!(
                "{SCHEME}://{host}:{port} is not in allowed_outbound_hosts"
            ))));
        }
        let connection = self.ctx.connections.open(broker, credentials, keep_alive);
        let connection = Arc::new(connection.map_err(OpenError::Failed)?);
        let handle = MqttHandle { connection, memory: self.ctx.memory.clone() };
        self.table.push(handle).map_err(|_| OpenError::Failed(MqttError::TooMany))
    }

    fn handle(&self, handle: &Resource<MqttHandle>) -> Result<MqttHandle> {
        Ok(self.table.get(handle)?.clone())
    }
}

impl MqttHandle {
    async fn publish(
        &self,
        topic: String,
        payload: Vec<u8>,
        qos: impl Into<QoS>,
    ) -> Result<(), MqttError> {
        // Concurrent calls hold messages too, so each is charged.
        let charge = self.memory.charge(topic.len() + payload.len());
        let _charge = charge.map_err(|error| MqttError::Other(error.to_string()))?;
        self.connection.publish(topic, payload, qos.into()).await
    }
}

/// Conversions from and to the types of an interface: those of both have the same shape.
macro_rules! convert_types {
    ($interface:ident) => {
        impl From<OpenError> for $interface::Error {
            fn from(error: OpenError) -> Self {
                match error {
                    OpenError::InvalidAddress => Self::InvalidAddress,
                    OpenError::Failed(error) => error.into(),
                }
            }
        }

        impl From<MqttError> for $interface::Error {
            fn from(error: MqttError) -> Self {
                match error {
                    MqttError::TooMany => Self::TooManyConnections,
                    MqttError::Connection(problem) => Self::ConnectionFailed(problem),
                    MqttError::Other(problem) => Self::Other(problem),
                }
            }
        }

        impl From<$interface::Qos> for QoS {
            fn from(qos: $interface::Qos) -> Self {
                match qos {
                    $interface::Qos::AtMostOnce => Self::AtMostOnce,
                    $interface::Qos::AtLeastOnce => Self::AtLeastOnce,
                    $interface::Qos::ExactlyOnce => Self::ExactlyOnce,
                }
            }
        }
    };
}

convert_types!(spin);
convert_types!(fermyon);

impl spin::Host for MqttView<'_> {}

impl spin::HostConnection for MqttView<'_> {
    fn drop(&mut self, handle: Resource<MqttHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T> spin::HostConnectionWithStore<T> for HasMqtt {
    async fn open(
        accessor: &Accessor<T, Self>,
        address: String,
        username: String,
        password: String,
        keep_alive: u64,
    ) -> Result<Result<Resource<MqttHandle>, spin::Error>> {
        let credentials = Credentials { username, password };
        let opened =
            accessor.with(|mut access| access.get().open_handle(&address, credentials, keep_alive));
        Ok(opened.map_err(Into::into))
    }

    async fn publish(
        accessor: &Accessor<T, Self>,
        handle: Resource<MqttHandle>,
        topic: String,
        payload: Vec<u8>,
        qos: spin::Qos,
    ) -> Result<Result<(), spin::Error>> {
        let handle = accessor.with(|mut access| access.get().handle(&handle))?;
        Ok(handle.publish(topic, payload, qos).await.map_err(Into::into))
    }
}

impl fermyon::Host for MqttView<'_> {}

impl fermyon::HostConnection for MqttView<'_> {
    fn open(
        &mut self,
        address: String,
        username: String,
        password: String,
        keep_alive: u64,
    ) -> Result<Result<Resource<MqttHandle>, fermyon::Error>> {
        let credentials = Credentials { username, password };
        Ok(self.open_handle(&address, credentials, keep_alive).map_err(Into::into))
    }

    async fn publish(
        &mut self,
        handle: Resource<MqttHandle>,
        topic: String,
        payload: Vec<u8>,
        qos: fermyon::Qos,
    ) -> Result<Result<(), fermyon::Error>> {
        Ok(self.handle(&handle)?.publish(topic, payload, qos).await.map_err(Into::into))
    }

    fn drop(&mut self, handle: Resource<MqttHandle>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

struct HasMqtt;

impl HasData for HasMqtt {
    type Data<'a> = MqttView<'a>;
}

/// Adds the MQTT interfaces of Spin to `linker`.
///
/// # Errors
/// The linker already defines one of them.
pub fn add_to_linker(linker: &mut Linker<InstanceState>) -> Result<()> {
    spin::add_to_linker::<_, HasMqtt>(linker, InstanceState::mqtt)?;
    fermyon::add_to_linker::<_, HasMqtt>(linker, InstanceState::mqtt)
}
