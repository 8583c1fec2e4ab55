// AXI4-Stream register slice: no combinational path from one side to the other, one beat a cycle.
module edgemoe_register_slice #(
    parameter int WIDTH = 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [WIDTH-1:0] in_data,
    input  logic in_valid,
    output logic in_ready,
    output logic [WIDTH-1:0] out_data,
    output logic out_valid,
    input  logic out_ready
);

  // A beat that arrived in the cycle in which the output stalled.
  logic [WIDTH-1:0] spare;
  logic spare_valid;

  assign in_ready = !spare_valid;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      out_valid   <= 1'b0;
      spare_valid <= 1'b0;
    end else if (out_ready || !out_valid) begin
      out_valid   <= in_valid || spare_valid;
      spare_valid <= 1'b0;
    end else if (in_valid) begin
      spare_valid <= 1'b1;
    end

  always_ff @(posedge ap_clk) begin
    if (in_ready) spare <= in_data;
    if (out_ready || !out_valid) out_data <= spare_valid ? spare : in_data;
  end

`ifndef SYNTHESIS
  logic past_valid;
  initial past_valid = 1'b0;
  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n;
    if (ap_rst_n && past_valid) begin
      assert (!spare_valid || out_valid);
      if ($past(out_valid && !out_ready)) assert (out_valid && $stable(out_data));
    end
  end
`endif
`ifdef FORMAL
  // Any one word comes out as the one that went in: `before` words stand before it, until it is out.
  logic [WIDTH-1:0] kept;
  logic inside;
  logic [1:0] before;
  logic takes;
  logic gives;
  (* anyseq *) logic chosen;
  assign takes = in_valid && in_ready;
  assign gives = out_valid && out_ready;
  initial assume (!ap_rst_n);
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      inside <= 1'b0;
    end else if (!inside && takes && chosen) begin
      inside <= 1'b1;
      kept   <= in_data;
      before <= 2'(out_valid) + 2'(spare_valid) - 2'(gives);
    end else if (inside && gives) begin
      inside <= before != 2'd0;
      before <= before - 2'd1;
    end
  always_ff @(posedge ap_clk)
    if (ap_rst_n && past_valid && inside) begin
      assert (before < 2'(out_valid) + 2'(spare_valid));
      assert ((before == 2'd0 ? out_data : spare) == kept);
    end
`endif

endmodule
