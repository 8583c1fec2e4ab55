// Streams of the kernels: their beats, the numbers in a beat, and frames of a counted length.
#ifndef EDGEMOE_STREAMS_H
#define EDGEMOE_STREAMS_H

#include "ap_axi_sdata.h"
#include "ap_int.h"
#include "hls_stream.h"
#include "types.h"

namespace edgemoe {

// TDATA, TVALID, TREADY and TLAST: no other signal.
template <int BITS>
using StreamBeat = hls::axis_data<ap_uint<BITS>, AXIS_ENABLE_LAST>;

template <int BITS>
using Stream = hls::stream<StreamBeat<BITS>>;

// A number of type T in bits FIRST to FIRST + STORED - 1 of a beat, sign-extended; its other lanes follow.
template <int FIRST, int STORED, typename T>
struct Field {
  static_assert(T::width <= STORED, "a number must fit the bytes that hold it");

  template <int BITS>
  static T get(const ap_uint<BITS>& data, int lane = 0) {
#pragma HLS inline
    const int low = FIRST + lane * STORED;
    return T(data.range(low + T::width - 1, low));
  }

  template <int BITS>
  static void put(ap_uint<BITS>& data, const T& value, int lane = 0) {
#pragma HLS inline
    const int low = FIRST + lane * STORED;
    data.range(low + STORED - 1, low) = ap_uint<STORED>(ap_int<STORED>(value));
  }
};

// How far a frame has come in.
struct Frame {
  bool ended;
  bool malformed;
};
const Frame NEW_FRAME = {false, false};

// The next beat of a frame, `last` if it ought to be its last one. After a TLAST that came too early: zero.
template <int BITS>
ap_uint<BITS> take(Stream<BITS>& stream, bool last, Frame& frame) {
#pragma HLS inline
  ap_uint<BITS> data = 0;
  if (!frame.ended) {
    const StreamBeat<BITS> beat = stream.read();
    data = beat.data;
    frame.ended = beat.last != 0;
    if (frame.ended != last) {
      frame.malformed = true;
    }
  }
  return data;
}

// What a frame has beyond its counted end, up to its TLAST.
template <int BITS>
void drop_rest(Stream<BITS>& stream, Frame& frame) {
#pragma HLS inline
DROP_REST:
  while (!frame.ended) {
#pragma HLS pipeline II = 1
#pragma HLS loop_tripcount min = 0 max = 0
    frame.ended = stream.read().last != 0;
  }
}

template <int BITS>
void give(Stream<BITS>& stream, const ap_uint<BITS>& data, bool last) {
#pragma HLS inline
  StreamBeat<BITS> beat;
  beat.data = data;
  beat.last = last ? 1 : 0;
  stream.write(beat);
}

// A beat of the weight image that came in by a stream: what the first port would deliver lies lowest.
inline Beat beat_of(const ap_uint<BEAT_BITS>& data) {
#pragma HLS inline
  Beat beat;
  for (int port = 0; port < WEIGHT_PORTS; ++port) {
#pragma HLS unroll
    beat.part[port] = data.range((port + 1) * AXI_BITS - 1, port * AXI_BITS);
  }
  return beat;
}

}  // namespace edgemoe

#endif
