// Joins BEATS beats into one word, the first in its lowest bits. The last beat passes straight through.
module edgemoe_collector #(
    parameter int WIDTH = 64,
    parameter int BEATS = 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [WIDTH-1:0] beat,
    input  logic valid,  // a beat is taken
    input  logic restart,  // the next beat is the first of a word
    output logic [BEATS*WIDTH-1:0] word,
    output logic complete  // the word ends with this beat
);

  if (BEATS == 1) begin : g_single
    wire unused = &{1'b0, ap_clk, ap_rst_n, restart};
    assign word = beat;
    assign complete = valid;
  end else begin : g_several
    localparam int COUNT_BITS = $clog2(BEATS);
    logic [COUNT_BITS-1:0] count;
    logic [(BEATS-1)*WIDTH-1:0] earlier;

    assign word = {beat, earlier};
    assign complete = valid && count == COUNT_BITS'(BEATS - 1);

    always_ff @(posedge ap_clk)
      if (!ap_rst_n || restart) count <= '0;
      else if (valid) count <= complete ? '0 : count + 1'b1;

    // The beats move down as they come, so that none needs an address.
    if (BEATS == 2) begin : g_two
      always_ff @(posedge ap_clk) if (valid) earlier <= beat;
    end else begin : g_more
      always_ff @(posedge ap_clk) if (valid) earlier <= {beat, earlier[(BEATS-1)*WIDTH-1:WIDTH]};
    end
  end

endmodule
