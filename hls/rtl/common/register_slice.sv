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

endmodule
