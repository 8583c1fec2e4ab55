// Holds a stream to its frames: a kernel that counts beats gets exactly as many as it counts, whatever the
// producer does. After a TLAST that comes too early it gets zeros for the rest of the frame; beats after the end
// of a frame without a TLAST are dropped up to the next TLAST. Either sets a flag that only reset clears.
module edgemoe_frame_guard #(
    parameter int WIDTH = 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [WIDTH-1:0] in_data,
    input  logic in_valid,
    output logic in_ready,
    input  logic in_last,
    output logic [WIDTH-1:0] out_data,
    output logic out_valid,
    input  logic out_ready,
    input  logic out_last,  // whether the beat that is offered is the last that the kernel counts
    output logic malformed
);

  logic filling;
  logic dropping;

  assign out_data = filling ? '0 : in_data;
  assign out_valid = filling || (in_valid && !dropping);
  assign in_ready = dropping || (out_ready && !filling);

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      filling   <= 1'b0;
      dropping  <= 1'b0;
      malformed <= 1'b0;
    end else if (filling) begin
      if (out_ready && out_last) filling <= 1'b0;
    end else if (dropping) begin
      if (in_valid && in_last) dropping <= 1'b0;
    end else if (in_valid && out_ready && in_last != out_last) begin
      malformed <= 1'b1;
      filling   <= in_last;
      dropping  <= out_last;
    end

`ifndef SYNTHESIS
  logic past_valid;
  initial past_valid = 1'b0;
  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n;
    if (ap_rst_n && past_valid) begin
      assert (!(filling && dropping));
      assert (!filling || malformed);
      assert (!dropping || malformed);
      // What is offered stays, if the producer keeps to it.
      if ($past(out_valid && !out_ready) && $past(in_valid) == in_valid && $stable(in_data)) assert (out_valid);
    end
  end
`endif
`ifdef FORMAL
  // Both sides are at the same place of a frame: the guard neither loses an end nor invents one.
  logic in_frame;  // beats of a frame have been taken in, but not its last
  logic out_frame;
  initial assume (!ap_rst_n);
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      in_frame  <= 1'b0;
      out_frame <= 1'b0;
    end else begin
      if (in_valid && in_ready) in_frame <= !in_last;
      if (out_valid && out_ready) out_frame <= !out_last;
    end
  always_ff @(posedge ap_clk)
    if (ap_rst_n && past_valid) begin
      assert (in_frame == (dropping || (out_frame && !filling)));
      assert (!filling || out_frame);
      assert (!dropping || !out_frame);
    end
`endif

endmodule
