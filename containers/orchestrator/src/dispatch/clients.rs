//! The gRPC clients of the services, each with the sizes of messages that its answers need.

use aisemble_protocol::v1::data_client::DataClient;
use aisemble_protocol::v1::llm_client::LlmClient;
use aisemble_protocol::v1::nlp_client::NlpClient;
use aisemble_protocol::v1::vision_client::VisionClient;
use aisemble_protocol::{limits, vision};
use tonic::transport::Channel;

pub(super) fn llm(channel: Channel) -> LlmClient<Channel> {
    LlmClient::new(channel)
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
}

pub(super) fn data(channel: Channel) -> DataClient<Channel> {
    DataClient::new(channel)
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
}

pub(super) fn vision(channel: Channel) -> VisionClient<Channel> {
    VisionClient::new(channel)
        .max_decoding_message_size(vision::GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(vision::GRPC_MESSAGE_BYTES_MAX)
}

pub(super) fn nlp(channel: Channel) -> NlpClient<Channel> {
    NlpClient::new(channel)
        .max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)
}
